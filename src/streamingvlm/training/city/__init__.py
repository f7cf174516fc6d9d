"""Training of the article's model on the city: vision on labels, then what remembers, on features of worlds that vision never saw.

Door: `recipe.trainers`; `python -m streamingvlm.training.city.recipe` makes the packaged base.
"""
