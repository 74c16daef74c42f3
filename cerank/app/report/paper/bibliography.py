"""The references that a paragraph on methods may cite, as BibTeX; only those that were used are written.

Invariant: an entry is what its publisher prints; nothing here is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

ENTRIES = {
    "jarvelin2002": r"""@article{jarvelin2002,
  author = {J{\"a}rvelin, Kalervo and Kek{\"a}l{\"a}inen, Jaana},
  title = {Cumulated gain-based evaluation of {IR} techniques},
  journal = {ACM Transactions on Information Systems}, volume = {20}, number = {4}, pages = {422--446}, year = {2002}
}""",
    "voorhees1999": """@inproceedings{voorhees1999,
  author = {Voorhees, Ellen M.},
  title = {The {TREC-8} Question Answering Track Report},
  booktitle = {Proceedings of the Eighth Text REtrieval Conference}, pages = {77--82}, year = {1999}
}""",
    "macavaney2022": """@inproceedings{macavaney2022,
  author = {MacAvaney, Sean and Macdonald, Craig and Ounis, Iadh},
  title = {Streamlining Evaluation with ir-measures},
  booktitle = {Advances in Information Retrieval (ECIR 2022)}, pages = {305--310}, year = {2022}
}""",
    "virtanen2020": """@article{virtanen2020,
  author = {Virtanen, Pauli and Gommers, Ralf and Oliphant, Travis E. and others},
  title = {{SciPy} 1.0: Fundamental Algorithms for Scientific Computing in {Python}},
  journal = {Nature Methods}, volume = {17}, pages = {261--272}, year = {2020}
}""",
    "urbano2019": r"""@inproceedings{urbano2019,
  author = {Urbano, Juli{\'a}n and Lima, Harlley and Hanjalic, Alan},
  title = {Statistical Significance Testing in Information Retrieval: An Empirical Analysis of Type {I}, Type {II} and
           Type {III} Errors},
  booktitle = {Proceedings of the 42nd International ACM SIGIR Conference}, pages = {505--514}, year = {2019},
  doi = {10.1145/3331184.3331259}
}""",
    "parapar2020": r"""@article{parapar2020,
  author = {Parapar, Javier and Losada, David E. and Presedo-Quindimil, Manuel A. and Barreiro, {\'A}lvaro},
  title = {Using Score Distributions to Compare Statistical Significance Tests for Information Retrieval Evaluation},
  journal = {Journal of the Association for Information Science and Technology}, volume = {71}, number = {1},
  pages = {98--113}, year = {2020}, doi = {10.1002/asi.24203}
}""",
    "fisher1935": """@book{fisher1935,
  author = {Fisher, Ronald A.}, title = {The Design of Experiments}, publisher = {Oliver and Boyd}, year = {1935}
}""",
    "holm1979": """@article{holm1979,
  author = {Holm, Sture}, title = {A Simple Sequentially Rejective Multiple Test Procedure},
  journal = {Scandinavian Journal of Statistics}, volume = {6}, number = {2}, pages = {65--70}, year = {1979}
}""",
    "dunn1961": """@article{dunn1961,
  author = {Dunn, Olive Jean}, title = {Multiple Comparisons Among Means},
  journal = {Journal of the American Statistical Association}, volume = {56}, number = {293}, pages = {52--64},
  year = {1961}
}""",
    "benjamini1995": """@article{benjamini1995,
  author = {Benjamini, Yoav and Hochberg, Yosef},
  title = {Controlling the False Discovery Rate: A Practical and Powerful Approach to Multiple Testing},
  journal = {Journal of the Royal Statistical Society: Series B}, volume = {57}, number = {1}, pages = {289--300},
  year = {1995}
}""",
    "westfall1993": """@book{westfall1993,
  author = {Westfall, Peter H. and Young, S. Stanley},
  title = {Resampling-Based Multiple Testing: Examples and Methods for p-Value Adjustment},
  publisher = {Wiley}, year = {1993}
}""",
    "schuirmann1987": """@article{schuirmann1987,
  author = {Schuirmann, Donald J.},
  title = {A Comparison of the Two One-Sided Tests Procedure and the Power Approach for Assessing the Equivalence of
           Average Bioavailability},
  journal = {Journal of Pharmacokinetics and Biopharmaceutics}, volume = {15}, number = {6}, pages = {657--680},
  year = {1987}
}""",
    "marcus1976": r"""@article{marcus1976,
  author = {Marcus, Ruth and Peritz, Eric and Gabriel, K. Ruben},
  title = {On Closed Testing Procedures with Special Reference to Ordered Analysis of Variance},
  journal = {Biometrika}, volume = {63}, number = {3}, pages = {655--660}, year = {1976}
}""",
    "goeman2010": """@article{goeman2010,
  author = {Goeman, Jelle J. and Solari, Aldo and Stijnen, Theo},
  title = {Three-sided Hypothesis Testing: Simultaneous Testing of Superiority, Equivalence and Inferiority},
  journal = {Statistics in Medicine}, volume = {29}, number = {20}, pages = {2117--2125}, year = {2010},
  doi = {10.1002/sim.4002}
}""",
    "bodoff2007": """@inproceedings{bodoff2007,
  author = {Bodoff, David and Li, Pu},
  title = {Test Theory for Assessing {IR} Test Collections},
  booktitle = {Proceedings of the 30th International ACM SIGIR Conference}, pages = {367--374}, year = {2007}
}""",
    "satterthwaite1946": """@article{satterthwaite1946,
  author = {Satterthwaite, F. E.}, title = {An Approximate Distribution of Estimates of Variance Components},
  journal = {Biometrics Bulletin}, volume = {2}, number = {6}, pages = {110--114}, year = {1946}
}""",
    "viechtbauer2005": """@article{viechtbauer2005,
  author = {Viechtbauer, Wolfgang},
  title = {Bias and Efficiency of Meta-Analytic Variance Estimators in the Random-Effects Model},
  journal = {Journal of Educational and Behavioral Statistics}, volume = {30}, number = {3}, pages = {261--293},
  year = {2005}
}""",
    "hartung2001": """@article{hartung2001,
  author = {Hartung, Joachim and Knapp, Guido},
  title = {On Tests of the Overall Treatment Effect in Meta-Analysis with Normally Distributed Responses},
  journal = {Statistics in Medicine}, volume = {20}, number = {12}, pages = {1771--1782}, year = {2001}
}""",
    "higgins2009": """@article{higgins2009,
  author = {Higgins, Julian P. T. and Thompson, Simon G. and Spiegelhalter, David J.},
  title = {A Re-Evaluation of Random-Effects Meta-Analysis},
  journal = {Journal of the Royal Statistical Society: Series A}, volume = {172}, number = {1}, pages = {137--159},
  year = {2009}
}""",
}
CERANK = """@misc{{cerank,
  key = {{cerank}}, title = {{cerank {version}}}, note = {{Fine-tuning cross-encoder re-rankers in stages}}
}}"""


def bibtex(keys: Sequence[str], version: str) -> str:
    """Return the entries of these keys, and cerank's own, in the order in which they are first cited."""
    entries = [CERANK.format(version=version), *(ENTRIES[key] for key in dict.fromkeys(keys) if key != "cerank")]
    return "\n\n".join(entries) + "\n"


def cited_as(key: str, version: str) -> str:
    """Return a reference as plain text names it: surname of the first author, and year."""
    if key == "cerank":
        return f"cerank {version}"
    entry = ENTRIES[key]
    author = entry.partition("author = {")[2].partition(",")[0].replace('{\\"a}', "ä").replace("{\\'a}", "á")
    is_alone = " and " not in entry.partition("author = {")[2].partition("title =")[0]
    year = entry.rpartition("year = {")[2].partition("}")[0]
    return f"{author} {year}" if is_alone else f"{author} et al. {year}"
