"""Markets: the questions about a race that forecasts are judged on, in the order of tables and plots."""

TOP_EVENTS = {"win": 1, "top 5": 5, "top 10": 10}
"""Market to the last position that counts."""
EVENT_MARKETS = {"win": 1, "top 3": 3, "top 5": 5, "top 10": 10, "top 20": 20}
"""Markets that forecasts of event probabilities may have, to the last position that counts."""
HEAD_TO_HEAD = "head to head"
FINISH = "finish distribution"
WHO_RETIRES, HOW_MANY_RETIRE = "who retires", "how many retire"
JOINT_EVENTS = "joint events"
RACE_MARKETS = (*TOP_EVENTS, HEAD_TO_HEAD, FINISH, WHO_RETIRES, HOW_MANY_RETIRE)
"""Markets in which each race has a rank of its own: those of sequential monitoring."""
MARKETS = (*RACE_MARKETS, JOINT_EVENTS)
POSITION_MARKETS = (*TOP_EVENTS, FINISH)
"""Markets that probabilities of positions give. The others need scenarios of whole races."""
ALL_MARKETS = "all markets"
"""Name of the summary over the markets."""
