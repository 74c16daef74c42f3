from cerank.api import ComparisonResult as ComparisonResult
from cerank.api import ComparisonRow as ComparisonRow
from cerank.api import LabRun as LabRun
from cerank.api import LoadedReranker as LoadedReranker
from cerank.api import RankedPassage as RankedPassage
from cerank.api import compare as compare
from cerank.api import load as load
from cerank.api import train as train

__version__: str
