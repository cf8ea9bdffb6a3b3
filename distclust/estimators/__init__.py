"""scikit-learn-style shells around the algorithms; no logic of their own."""
