"""What the Kubeflow Pipelines API server checks, for the test server beside this file."""

import base64
import json
import operator
import re
import urllib.parse

import yaml

CODES = {3: 400, 5: 404, 6: 409, 7: 403, 9: 400, 10: 409, 13: 500, 14: 503, 16: 401}
INVALID, NOT_FOUND, EXISTS, FORBIDDEN, ABORTED, INTERNAL, UNAUTHENTICATED = 3, 5, 6, 7, 10, 13, 16
MAX_FILE = 32 << 20
PIPELINE_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,127}$")
SORTABLE = {
    "experiments": {"experiment_id", "display_name", "name", "created_at", "last_run_created_at"},
    "pipelines": {"pipeline_id", "display_name", "name", "created_at"},
    "versions": {"pipeline_version_id", "display_name", "name", "created_at"},
    "runs": {
        "run_id",
        "display_name",
        "name",
        "created_at",
        "scheduled_at",
        "state",
        "finished_at",
    },
    "recurringruns": {"recurring_run_id", "display_name", "name", "created_at", "updated_at"},
}
FILTERABLE = {
    "experiments": SORTABLE["experiments"] | {"storage_state", "namespace"},
    "pipelines": SORTABLE["pipelines"] | {"description", "namespace"},
    "versions": SORTABLE["versions"] | {"description", "pipeline_spec"},
    "runs": SORTABLE["runs"] | {"storage_state", "description", "experiment_id"},
    "recurringruns": SORTABLE["recurringruns"] | {"description", "status"},
}
ID_OF = {
    "experiments": "experiment_id",
    "pipelines": "pipeline_id",
    "versions": "pipeline_version_id",
    "runs": "run_id",
    "recurringruns": "recurring_run_id",
}


class ApiError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def parse_package(text: bytes) -> list[dict]:
    """The documents of a package: the pipeline spec first, then the platform spec."""
    if len(text) > MAX_FILE:
        raise ApiError(INVALID, f"File size too large ({len(text)} bytes). Maximum: {MAX_FILE}")
    try:
        documents = [d for d in yaml.load_all(text, Loader=yaml.CSafeLoader) if d is not None]
    except yaml.YAMLError as error:
        raise ApiError(INVALID, f"unable to decode yaml document: {error}") from None
    specs = [d for d in documents if isinstance(d, dict) and "pipelineInfo" in d]
    if not specs:
        raise ApiError(INVALID, "no pipeline spec is provided")
    if len(specs) > 1:
        raise ApiError(INVALID, "multiple pipeline specs provided")
    spec = specs[0]
    if spec.get("schemaVersion") != "2.1.0":
        version = spec.get("schemaVersion")
        raise ApiError(
            INVALID,
            f"KFP only supports schema version 2.1.0, but the pipeline spec has version {version}",
        )
    if not PIPELINE_NAME.match(spec["pipelineInfo"].get("name", "")):
        raise ApiError(
            INVALID,
            "pipeline's name must contain only lowercase alphanumeric characters or '-' and must "
            "start with alphanumeric characters",
        )
    if not spec.get("root"):
        raise ApiError(INVALID, "invalid v2 pipeline spec: root component is empty")
    return [spec, *[d for d in documents if isinstance(d, dict) and "platforms" in d]]


def check_parameters(spec: dict, given: dict) -> None:
    known = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    kinds = {
        "NUMBER_DOUBLE": (int, float),
        "NUMBER_INTEGER": (int, float),
        "STRING": str,
        "BOOLEAN": bool,
        "LIST": list,
        "STRUCT": dict,
    }
    for name, parameter in known.items():
        if name not in given:
            if not parameter.get("isOptional") and "defaultValue" not in parameter:
                raise ApiError(
                    INVALID,
                    f"parameter {name} is not optional, yet has neither default value nor user "
                    "provided value",
                )
            continue
        kind, value = parameter["parameterType"], given[name]
        wrong = not isinstance(value, kinds[kind])
        if wrong or (kind.startswith("NUMBER") and isinstance(value, bool)):
            raise ApiError(
                INVALID,
                f"input parameter {name} requires type {kind.lower()}, but the input parameter is "
                f"not of {kind.lower()} value type",
            )
    extra = sorted(set(given) - set(known))
    if extra:
        raise ApiError(
            INVALID, f"parameter(s) provided are not required by pipeline: {', '.join(extra)}"
        )


def text_field(body: dict, key: str) -> str:
    value = body.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ApiError(INVALID, f"proto: invalid value for string field {key}: {value!r}")
    return value


def int_field(body: dict, key: str) -> int:
    value = body.get(key, 0)
    if isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value)):
        raise ApiError(INVALID, f"proto: invalid value for int64 field {key}: {value!r}")
    return int(value)


def check_cron(text: str) -> None:
    """As robfig/cron v1 does: five or six fields, each a number, list, range or step in bounds."""
    bounds = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]
    days, months = "sun mon tue wed thu fri sat", "jan feb mar apr may jun jul aug sep oct nov dec"
    names = {name: i for i, name in enumerate(days.split())}
    names |= {name: i + 1 for i, name in enumerate(months.split())}
    if re.fullmatch(r"@(yearly|annually|monthly|weekly|daily|midnight|hourly)|@every \w+", text):
        return
    fields = text.split()
    problem = None
    if len(fields) not in (5, 6):
        problem = f"Expected 5 to 6 fields, found {len(fields)}: {text}"
    for field, (low, high) in zip(fields, bounds, strict=False):
        for part in field.split(","):
            match = re.fullmatch(r"(\*|\?|\w+)(?:-(\w+))?(?:/(\d+))?", part)
            values = (
                [] if match is None else [v for v in match.group(1, 2) if v not in (None, "*", "?")]
            )
            numbers = [names.get(v.lower(), v) for v in values]
            if match is None or any(not str(n).isdigit() for n in numbers):
                problem = f"Failed to parse int from {part}"
            elif any(not low <= int(n) <= high for n in numbers):
                problem = f"Value out of range ({low}..{high}): {part}"
    if problem:
        raise ApiError(
            INVALID,
            "Schedule cron is not a supported format(https://godoc.org/github.com/robfig/cron). "
            f"Error: {problem}",
        )


def matches(item: dict, filters: str, kind: str) -> bool:
    if not filters:
        return True
    try:
        predicates = json.loads(urllib.parse.unquote(filters)).get("predicates", [])
    except (ValueError, AttributeError):
        raise ApiError(INVALID, f"failed to parse valid filter from {filters!r}") from None
    names = ["", "EQUALS", "NOT_EQUALS", "GREATER_THAN", "", "GREATER_THAN_EQUALS", "LESS_THAN"]
    names += ["LESS_THAN_EQUALS", "IN", "IS_SUBSTRING"]
    checks = {
        "EQUALS": operator.eq,
        "NOT_EQUALS": operator.ne,
        "IN": lambda actual, value: actual in value,
        "IS_SUBSTRING": operator.contains,
        "GREATER_THAN": operator.gt,
        "GREATER_THAN_EQUALS": operator.ge,
        "LESS_THAN": operator.lt,
        "LESS_THAN_EQUALS": operator.le,
    }
    for predicate in predicates:
        operation = predicate.get("operation")
        operation = names[operation] if isinstance(operation, int) else operation
        key = predicate.get("key")
        if key not in FILTERABLE[kind]:
            raise ApiError(INVALID, f'no support for filtering on unrecognized field "{key}"')
        snake = {
            re.sub(r"([A-Z])", lambda m: "_" + m[1].lower(), k): v for k, v in predicate.items()
        }
        value = next((v for k, v in snake.items() if k.endswith(("_value", "_values"))), None)
        if value is None:
            raise ApiError(INVALID, "predicate has no value")
        value = value.get("values", value) if isinstance(value, dict) else value
        actual = item.get("display_name" if key == "name" else key) or ""
        if operation not in checks:
            raise ApiError(INVALID, f"invalid predicate operation: {operation}")
        if not checks[operation](actual, value):
            return False
    return True


def listing(kind: str, items: list[dict], query: dict[str, str]) -> dict:
    size = int(query.get("page_size") or 20)
    if size < 0:
        raise ApiError(INVALID, f"The page size should be greater than 0. Got {size}")
    size = min(size or 20, 200)
    words = (query.get("sort_by") or "created_at").lower().split()
    if len(words) > 2 or (len(words) == 2 and words[1] not in ("asc", "desc")):
        raise ApiError(INVALID, f'Received invalid sort by format "{query.get("sort_by")}"')
    if words[0] not in SORTABLE[kind]:
        raise ApiError(INVALID, f'Invalid sorting field: "{words[0]}" on listable type {kind}')
    asked = {"sort": words, "filter": query.get("filter", "")}
    chosen = [item for item in items if matches(item, asked["filter"], kind)]
    key = {"name": "display_name"}.get(words[0], words[0])
    chosen.sort(
        key=lambda item: (str(item.get(key)), item[ID_OF[kind]]), reverse=words[-1] == "desc"
    )
    start = 0
    if query.get("page_token"):
        try:
            token = json.loads(base64.b64decode(query["page_token"], validate=True))
            before = token["asked"]
        except (ValueError, KeyError, TypeError):
            raise ApiError(INVALID, "Invalid page token") from None
        if (query.get("sort_by") or query.get("filter")) and before != asked:
            raise ApiError(
                INVALID,
                "page token does not match the supplied sort by and/or filtering criteria",
            )
        ids = [item[ID_OF[kind]] for item in chosen]
        start = ids.index(token["id"]) if token["id"] in ids else len(ids)
    page = chosen[start : start + size]
    name = {"versions": "pipeline_versions", "recurringruns": "recurringRuns"}.get(kind, kind)
    answer: dict = {"total_size": len(chosen)}
    if page:
        answer[name] = page
    if start + size < len(chosen):
        following = {"asked": asked, "id": chosen[start + size][ID_OF[kind]]}
        answer["next_page_token"] = base64.b64encode(json.dumps(following).encode()).decode()
    return answer
