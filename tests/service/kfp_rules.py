"""What the Kubeflow Pipelines API server checks, for the test server beside this file.

After the API server of KFP 2.17.0: ``backend/src/apiserver`` (server, template, list, filter,
model, validation) and its published models, kfp-server-api.
"""

import base64
import json
import operator
import re
import urllib.parse
from datetime import datetime

import kfp_server_api
import yaml

CODES = {3: 400, 5: 404, 6: 409, 7: 403, 9: 400, 10: 409, 13: 500, 14: 503, 16: 401}
INVALID, NOT_FOUND, EXISTS, FORBIDDEN, ABORTED, INTERNAL, UNAUTHENTICATED = 3, 5, 6, 7, 10, 13, 16
PREFIXES = {
    INVALID: "Invalid input error: ",
    NOT_FOUND: "ResourceNotFoundError: ",
    EXISTS: "Already exist error: ",
    INTERNAL: "InternalServerError: ",
}
MAX_FILE = 32 << 20
PIPELINE_NAME = re.compile(r"^[a-z0-9][a-z0-9-]*$")
COMMON = {"display_name", "name", "id", "created_at", "description"}
FILTERABLE = {
    "experiments": COMMON | {"experiment_id", "last_run_created_at", "namespace", "storage_state"},
    "pipelines": COMMON | {"pipeline_id", "namespace"},
    "versions": COMMON | {"pipeline_version_id", "status", "pipeline_spec"},
    "runs": COMMON
    | {"run_id", "finished_at", "scheduled_at", "storage_state", "status", "namespace"}
    | {"experiment_id", "state", "state_history", "runtime_details", "recurring_run_id"},
    "recurringruns": COMMON | {"recurring_run_id", "updated_at"},
}
ID_OF = {
    "experiments": "experiment_id",
    "pipelines": "pipeline_id",
    "versions": "pipeline_version_id",
    "runs": "run_id",
    "recurringruns": "recurring_run_id",
}


class ApiError(Exception):
    """A refusal: what the server logs and sends as the message, and its shorter public form."""

    def __init__(self, code: int, message: str, before: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = before + PREFIXES.get(code, "") + message
        self.public = "Internal Server Error" if code == INTERNAL else message

    def body(self, doing: str) -> dict:
        """As grpc-gateway writes it."""
        status = {"code": self.code, "message": self.public}
        return {
            "code": self.code,
            "message": f"{doing}: {self.message}" if doing else self.message,
            "details": [{"@type": "type.googleapis.com/google.rpc.Status", **status}],
        }


class BadBody(ApiError):
    """What protojson refuses: it has no details and no chain of messages."""

    def body(self, doing: str) -> dict:
        return {"code": INVALID, "message": f"proto: {self.public}", "details": []}


def check_body(body: object, kind: str) -> None:
    """As protojson does: no unknown fields, every value of its field's type."""
    if not isinstance(body, dict):
        raise BadBody(INVALID, f"syntax error (line 1:1): unexpected token {body!r}")
    types = getattr(kfp_server_api, kind).openapi_types
    for name, value in body.items():
        field = re.sub(r"([A-Z])", lambda m: "_" + m[1].lower(), name)
        if field not in types:
            raise BadBody(INVALID, f'(line 1:2): unknown field "{name}"')
        if value is not None:
            check_value(name, value, types[field])


def check_value(name: str, value: object, kind: str) -> None:
    listed = re.fullmatch(r"list\[(\w+)\]", kind)
    mapped = re.fullmatch(r"dict\(str, (\w+)\)", kind)
    model = getattr(kfp_server_api, kind, None)
    right = True
    if listed and isinstance(value, list):
        for item in value:
            check_value(name, item, listed[1])
    elif mapped and isinstance(value, dict):
        for key, item in value.items():
            check_value(f"{name}.{key}", item, mapped[1])
    elif hasattr(model, "allowable_values") or isinstance(getattr(model, "ENABLE", None), str):
        right = value in model.allowable_values
    elif model is not None:
        check_body(value, kind)
    elif name == "max_concurrency":  # an int64: a number, or one in a string
        right = not isinstance(value, bool) and bool(re.fullmatch(r"-?\d+", str(value)))
    elif kind == "datetime":
        try:
            datetime.fromisoformat(str(value))
        except ValueError:
            right = False
    else:
        plain = {"str": str, "bool": bool, "int": int, "object": object}
        right = isinstance(value, plain.get(kind, dict if mapped else list))
    if not right:
        raise BadBody(INVALID, f"(line 1:2): invalid value for {kind} field {name}: {value!r}")


def number(query: dict[str, str], key: str) -> int:
    try:
        return int(query.get(key) or 0)
    except ValueError:
        raise BadBody(
            INVALID,
            f'type mismatch, parameter: {key}, error: strconv.ParseInt: parsing "{query[key]}"',
        ) from None


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
    if not spec.get("root"):
        raise ApiError(INVALID, "invalid v2 pipeline spec: root component is empty")
    name = spec["pipelineInfo"].get("name", "")
    if len(name) > 128:
        raise ApiError(INVALID, "pipeline's name must contain no more than 128 characters")
    if not PIPELINE_NAME.match(name):
        raise ApiError(
            INVALID,
            "pipeline's name must contain only lowercase alphanumeric characters or '-' and must "
            "start with alphanumeric characters",
        )
    return [spec, *[d for d in documents if isinstance(d, dict) and "platforms" in d]]


def inputs_of(spec: dict, task: str) -> dict:
    """The inputs of a task's parameters, wherever in the graph the task stands."""
    dags = [spec["root"], *spec.get("components", {}).values()]
    for dag in dags:
        found = dag.get("dag", {}).get("tasks", {}).get(task)
        if found is not None:
            return found.get("inputs", {}).get("parameters", {})
    raise ApiError(NOT_FOUND, f"the pipeline has no task {task}")


def check_parameters(spec: dict, given: dict) -> None:
    known = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    kinds = {
        "NUMBER_DOUBLE": (int, float),
        "NUMBER_INTEGER": (int, float),  # protobuf has one kind of number
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
            what = {"NUMBER": "double or integer", "BOOLEAN": "bool"}.get(
                kind.partition("_")[0], kind.lower()
            )
            raise ApiError(
                INVALID,
                f"input parameter {name} requires type {what}, but the input parameter is not of "
                f"{what.replace('double or integer', 'number')} value type",
            )
    extra = sorted(set(given) - set(known))
    if extra:
        raise ApiError(
            INVALID, f"parameter(s) provided are not required by pipeline: {', '.join(extra)}"
        )


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


def column(kind: str, key: str) -> str:
    """The field of an item that an API name means."""
    if key == "id":
        return ID_OF[kind]
    if key == "name" and kind not in ("pipelines", "versions"):
        return "display_name"
    return key


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
        if operation not in checks:
            raise ApiError(INVALID, f"invalid predicate operation: {operation}")
        if (operation == "IN") != isinstance(value, list):
            raise ApiError(INVALID, f"cannot use operator {operation} with {value!r}")
        if operation == "IS_SUBSTRING" and not isinstance(value, str):
            raise ApiError(INVALID, "cannot use non string value type with operator IS_SUBSTRING")
        actual = item.get(column(kind, key)) or ""
        if not checks[operation](actual, value):
            return False
    return True


def options(kind: str, query: dict[str, str]) -> dict:
    """How to sort and filter: as asked, or as the page token says that was asked before."""
    words = (query.get("sort_by") or "created_at").lower().split()
    if len(words) > 2 or (len(words) == 2 and words[1] not in ("asc", "desc")):
        raise ApiError(INVALID, f'Received invalid sort by format "{query.get("sort_by")}"')
    if words[0] not in FILTERABLE[kind]:
        raise ApiError(INVALID, f'Invalid sorting field: "{words[0]}" on listable type {kind}')
    asked = {
        "key": column(kind, words[0]),
        "descending": words[-1] == "desc",
        "filter": query.get("filter", ""),
    }
    if not query.get("page_token"):
        return asked
    try:
        token = json.loads(base64.b64decode(query["page_token"], validate=True))
        before = {name: token[name] for name in (*asked, "from")}
    except (ValueError, KeyError, TypeError):
        raise ApiError(INVALID, "Invalid page token") from None
    if (query.get("sort_by") or query.get("filter")) and before != {
        **asked,
        "from": before["from"],
    }:
        raise ApiError(
            INVALID,
            "page token does not match the supplied sort by and/or filtering criteria. Either "
            "specify the same criteria or leave the latter empty if page token is specified",
        )
    return before


def listing(kind: str, items: list[dict], query: dict[str, str]) -> dict:
    size = number(query, "page_size")
    if size < 0:
        raise ApiError(INVALID, f"The page size should be greater than 0. Got {size}")
    size = min(size or 20, 200)
    asked = options(kind, query)
    following = asked.pop("from", None)
    chosen = [item for item in items if matches(item, asked["filter"], kind)]

    def place(item: dict) -> list[str]:
        return [str(item.get(asked["key"])), item[ID_OF[kind]]]

    chosen.sort(key=place, reverse=asked["descending"])
    rest = [
        item
        for item in chosen
        if following is None
        or (place(item) <= following if asked["descending"] else place(item) >= following)
    ]
    name = {"versions": "pipeline_versions", "recurringruns": "recurringRuns"}.get(kind, kind)
    answer: dict = {"total_size": len(chosen)}
    if rest:
        answer[name] = rest[:size]
    if len(rest) > size:
        token = json.dumps({**asked, "from": place(rest[size])})
        answer["next_page_token"] = base64.b64encode(token.encode()).decode()
    return answer
