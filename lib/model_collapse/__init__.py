"""Learning with generational data: the library behind *Model Collapse, the executable book*.

A model is fitted to data, new data are drawn from the model, the next model is fitted to those, and so on. The process
is in `model_collapse.process`; the distributions for which it can be solved are in `discrete` and `gaussian`. These
need numpy and scipy alone; what draws charts or reads text brings its libraries when it is imported or called.
"""
