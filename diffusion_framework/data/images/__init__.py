"""Image files: folders of pictures, IDX files, the digits, and how a picture is decoded."""
