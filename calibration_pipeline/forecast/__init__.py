"""The forecast of the next race: probabilities of cars and events, with intervals."""
