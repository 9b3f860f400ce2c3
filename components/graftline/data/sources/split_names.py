"""Names of splits as people write them, in the languages and spellings that data sets use."""

import re
import unicodedata
from collections.abc import Iterable, Mapping

from graftline.data.sources.label_text import clean_text, words_of

_TRAIN = (
    "train training trn trainval trainset traindata trainingset trainingdata trainimages trainimgs "
    "trainingsdaten trainingsset trainingsmenge trainingsbilder trainieren entrainement "
    "apprentissage entrenamiento treino treinamento addestramento allenamento trening treningowy "
    "treningowe uczacy egitim treningsdata traningsdata тренировка тренировочная обучение "
    "обучающая 训练 訓練 学習 학습 훈련"
)
_VAL = (
    "val valid validate validation dev development valset valdata validset validationset "
    "validationdata devset valimages validieren validierung validierungsdaten validierungsset "
    "validacion validacao validazione validatie walidacja walidacyjny dogrulama validering "
    "валидация валидационная проверка проверочная 验证 驗證 検証 검증"
)
_TEST = (
    "test testing tst testset testdata testingset testingdata testimages testimgs holdout heldout "
    "testdaten testmenge testbilder testen teste testes prueba pruebas prova testowy testowe "
    "тест тестовая тестирование 测试 測試 テスト 테스트"
)
_EVAL = "eval evaluation evalset evaluacion avaliacao valutazione auswertung evaluering 評価 평가"
_OF_CJK = ("データセット", "データ", "数据集", "数据", "資料集", "데이터", "세트", "集", "用")

# `eval` is a test split, as in the `datasets` library's list of keywords.
SPLIT_WORDS: Mapping[str, str] = {
    **dict.fromkeys(_TRAIN.split(), "train"),
    **dict.fromkeys(_VAL.split(), "val"),
    **dict.fromkeys(_TEST.split(), "test"),
    **dict.fromkeys(_EVAL.split(), "test"),
}
EVAL_WORDS = words_of(_EVAL)
# Words that may stand beside a split's in the name of its folder or shard: training_set, seg_test.
_FILLERS = words_of(
    "set sets data dataset images image imgs img pics seg cls split folder files shard shards "
    "part of the"
)


def split_words(name: str) -> tuple[str, bool] | None:
    """What split the name of a folder or shard stands for.

    Returns:
        The split's word in lower case and whether the name has other than filling words beside
        it; None where it names no split, or two.
    """
    text = re.sub(r"(?i)\bhold[-_ ]?out\b|\bheld[-_ ]?out\b", "holdout", clean_text(name))
    words = _parts(text)
    known = [word for word in words if word in SPLIT_WORDS]
    if not known or len({SPLIT_WORDS[word] for word in known}) > 1:
        return None
    others = [word for word in words if word not in SPLIT_WORDS and word not in _FILLERS]
    return known[0], bool(others)


def names_split(name: str) -> bool:
    """Whether the name is that of a split and of nothing else."""
    found = split_words(name)
    return found is not None and not found[1]


def clear_splits(names: Iterable[str]) -> dict[str, str]:
    """The split of each name that is a split's, of all names of one level.

    Names with other words beside the split's count where these are the same in all of them:
    `cars_train` and `cars_test`.
    """
    named = splits_of(names)
    clear = {name: split for name, split in named.items() if names_split(name)}
    beside = {" ".join(w for w in _parts(n) if w not in SPLIT_WORDS) for n in named}
    if len(named) > 1 and len(beside) == 1 and len(set(named.values())) > 1:
        return named
    return clear


def is_flag(column: str) -> bool:
    """Whether yes or no in a column of this name says that an image is in one split."""
    return split_of_flag(column) is not None


def split_of_flag(column: str) -> str | None:
    """The split that yes stands for in a column of this name; None where it names none."""
    words = [word for word in _parts(column) if word not in ("is", "in", "for", "used")]
    found = split_words(" ".join(words))
    return SPLIT_WORDS[found[0]] if found is not None and not found[1] else None


def splits_of(names: Iterable[str]) -> dict[str, str]:
    """The split of each name that stands for one; `eval` beside a test split is validation."""
    words = {name: found[0] for name in names if (found := split_words(name)) is not None}
    tested = any(SPLIT_WORDS[w] == "test" and w not in EVAL_WORDS for w in words.values())
    validated = any(SPLIT_WORDS[w] == "val" for w in words.values())
    eval_split = "val" if tested and not validated else "test"
    return {name: eval_split if w in EVAL_WORDS else SPLIT_WORDS[w] for name, w in words.items()}


def stated_splits(cells: Iterable[str]) -> dict[str, str]:
    """The split of each cell, of all there are, that states one and nothing else."""
    return splits_of({cell for cell in cells if names_split(cell)})


_COLUMN_WORDS = words_of("split subset partition phase usage")
_COLUMN_NAMES = words_of("set istrain istest isval isvalid isvalidation trainsplit datasplit")


def only_splits(values: Iterable[str]) -> bool:
    """Whether texts that stand for labels are the names of splits, train among several."""
    kinds = {value.strip().lower() for value in values} - {""}
    found = stated_splits(kinds)
    return len(found) == len(kinds) and {"train"} < set(found.values())


def is_split_column(name: str) -> bool:
    """Whether a column or key of this name says which split an image is for."""
    words = _words(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    return bool(words) and (
        any(word in _COLUMN_WORDS for word in words)
        or "".join(words) in _COLUMN_NAMES
        or is_flag(name)
    )


def _parts(text: str) -> list[str]:
    """The words of a name; TrainImages has two, but tEsT one."""
    words = _words(text)
    if not any(word in SPLIT_WORDS for word in words):
        words = _words(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))
    return words


def _words(text: str) -> list[str]:
    """The words of a name in lower case, without accents."""
    if not text.isascii():
        apart = unicodedata.normalize("NFD", text)
        bare = "".join(one for one in apart if not "\u0300" <= one <= "\u036f")
        text = unicodedata.normalize("NFC", bare).replace("ı", "i")
    return [_root(word) for word in re.findall(r"[^\W\d_]+", text.lower())]


def _root(word: str) -> str:
    if word.isascii():
        return word
    end = next((end for end in _OF_CJK if word.endswith(end) and word != end), "")
    return word.removesuffix(end)
