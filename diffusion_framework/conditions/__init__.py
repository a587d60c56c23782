from .base import BoundConditions, Conditioner, Conditions
from .labels import Labels
