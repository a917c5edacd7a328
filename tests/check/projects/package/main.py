import random

from shop import app
from shop.flows import order

print(app, order, random.random())
