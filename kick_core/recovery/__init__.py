"""Winning back what compression took: block by block (`blocks`), or by low-rank updates of all matrices (`adapters`).

Which weights are zero never changes, and codes stay codes: what is recovered is as sparse, or as narrow, as before.
"""
