"""To learn and to practise: the demo, tours, drills, replays of simulated crashes."""
