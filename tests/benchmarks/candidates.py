"""The question that ``select`` asks, against the same in SQL by hand.

Ten million predictions of three model versions over a year, in parts of a million, and
100,000 labels (``--quick``: a tenth). Both questions ask for the 1,000 candidates of
least margin of the newest version, of all its rows, over the same files: the KQL query
through ``KqlDataset``'s service, its SQL recalled as from the second
time on, and SQL written for DuckDB. They run
in turns in processes of their own, each timed around the question alone. Both must
bring back the same images. Peak memory is that of the whole process that asks.

Then the daily question, for a window of 30 days, to the year and to its last month
alone.
"""

import json
import os
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
from tests.benchmarks.stage import interleave, ratios, run, tell, tell_ratio

GOAL = 1.5
GOAL_WINDOW = 1.1
GOAL_MB = 1024
_YEAR = 360

_ASK = """
import json, resource, sys, time
from pathlib import Path
folder, how, days = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
if how == "kql":
    from active_learning.queries import query_text
    from active_learning.services.telemetry.local import LocalTelemetry
    began = time.perf_counter()
    answer = LocalTelemetry(folder, memory="600MB", cache=folder / "kql").query(
        query_text("candidates"),
        dict(rank_by="margin", over="margin", exponent="1.0", budget=50,
             window_days=days, expire_after_days=14, with_vectors=0,
             until="2025-12-31T00:00:00Z"),
    )
else:
    import duckdb
    began = time.perf_counter()
    with duckdb.connect() as connection:
        connection.execute("SET memory_limit = '600MB'")
        answer = connection.sql(Path(sys.argv[4]).read_text().format(
            folder=folder, days=days)).df()
seconds = time.perf_counter() - began
print(json.dumps({
    "seconds": seconds, "images": sorted(answer["image_id"]),
    "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""

_BY_HAND = """
WITH recent AS NOT MATERIALIZED (
    SELECT * FROM read_parquet('{folder}/predictions/*.parquet')
    WHERE scored_at > TIMESTAMPTZ '2025-12-31 00:00:00+00' - INTERVAL {days} DAY
      AND scored_at <= TIMESTAMPTZ '2025-12-31 00:00:00+00'
), champion AS MATERIALIZED (
    SELECT arg_max(model_version, scored_at) AS version FROM recent
), taken AS (
    SELECT image_id FROM read_parquet('{folder}/labels/*.parquet')
    UNION ALL SELECT image_id FROM read_parquet('{folder}/test_set/*.parquet')
), eligible AS MATERIALIZED (
    SELECT image_id, max(1 - margin) AS utility FROM recent
    WHERE model_version = (SELECT version FROM champion)
      AND image_id NOT IN (SELECT image_id FROM taken)
    GROUP BY image_id
), best AS MATERIALIZED (
    SELECT * FROM eligible ORDER BY utility DESC, image_id LIMIT 1000
)
SELECT image_id, any_value(prediction_id) AS prediction_id, any_value(label) AS label,
    any_value(confidence) AS confidence, any_value(margin) AS margin,
    any_value(entropy) AS entropy, any_value(sampling_key) AS sampling_key,
    any_value(classes) AS classes, any_value(probabilities) AS probabilities,
    any_value(model_name) AS model_name, any_value(model_version) AS model_version,
    max(scored_at) AS scored_at, any_value(utility) AS utility,
    (SELECT count(*) FROM eligible) AS population
FROM recent JOIN best USING (image_id)
WHERE model_version = (SELECT version FROM champion)
GROUP BY image_id ORDER BY utility DESC, image_id
"""


def main(folder: Path, repetitions: int, quick: bool) -> None:
    """Measure and print."""
    n = 1_000_000 if quick else 10_000_000
    year, month = folder / "year", folder / "month"
    write(year, n)
    sql = folder / "by_hand.sql"
    sql.write_text(_BY_HAND)
    asked: dict[str, Any] = {}

    def ask(place: Path, how: str, days: int) -> Any:
        command = [sys.executable, "-c", textwrap.dedent(_ASK)]
        ran = run([*command, str(place), how, str(days), str(sql)], dict(os.environ))
        asked[how] = json.loads(ran.output.splitlines()[-1])
        return replace(ran, wall_s=asked[how]["seconds"])

    ask(year, "kql", _YEAR)  # so that both find the files in memory
    pairs = interleave(
        repetitions, lambda: ask(year, "kql", _YEAR), lambda: ask(year, "sql", _YEAR)
    )
    tell(f"candidates: {n:,} predictions, 3 versions, the newest asked for 1,000")
    tell_ratio("KQL query / SQL by hand", ratios(pairs), GOAL)
    memory = [asked["kql"]["mb"] / GOAL_MB]
    tell_ratio("peak memory / 1 GB", memory, 1.0)
    same = asked["kql"]["images"] == asked["sql"]["images"]
    tell(f"  the same {len(asked['kql']['images'])} images: {'yes' if same else 'NO'}")

    for table in ("predictions", "labels", "test_set"):
        (month / table).mkdir(parents=True)
        files = sorted((year / table).glob("*.parquet"))
        for file in files[-2:] if table == "predictions" else files:
            (month / table / file.name).symlink_to(file)
    ask(month, "kql", 30)
    # They take a second, so that more of them cost little.
    pairs = interleave(
        3 * repetitions, lambda: ask(year, "kql", 30), lambda: ask(month, "kql", 30)
    )
    tell_ratio("30 days out of a year / out of a month", ratios(pairs), GOAL_WINDOW)


def write(folder: Path, n: int) -> None:
    """A year of predictions in the columns and types of the table."""
    parts = 12
    for table in ("predictions", "labels", "test_set"):
        (folder / table).mkdir(parents=True)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for part in range(parts):
            connection.execute(
                f"""
                COPY (
                    SELECT md5(i::VARCHAR) AS prediction_id,
                        'class_' || i % 10 || '/' || (i % {n // 3}) || '.png'
                            AS image_id,
                        'batch' AS source, 'class_' || i % 10 AS label,
                        0.1 + 0.9 * (hash(i) % 1000003) / 1000003.0 AS confidence,
                        (hash(i + 1) % 1000003) / 1000003.0 AS margin,
                        2.3 * (hash(i + 2) % 1000003) / 1000003.0 AS entropy,
                        (hash(i + 3) % 9007199254740993) / 9007199254740993.0
                            AS sampling_key,
                        [('class_' || c) FOR c IN range(10)] AS classes,
                        [(hash(i + c) % 1000003) / 10000030.0 FOR c IN range(10)]
                            AS probabilities,
                        'small_cnn' AS model_name,
                        (1 + 3 * i // {n})::BIGINT AS model_version,
                        TIMESTAMPTZ '2025-01-05 00:00:00+00'
                            + to_microseconds(i * {_YEAR * 86_400_000_000 // n}::BIGINT)
                            AS scored_at
                    FROM range({n * part // parts}, {n * (part + 1) // parts}) t(i)
                ) TO '{folder}/predictions/{part:02d}.parquet' (FORMAT parquet)
                """
            )
        connection.execute(
            f"""
            COPY (
                SELECT i::VARCHAR AS label_id,
                    'class_' || (7 * i) % 10 || '/' || (7 * i) || '.png' AS image_id,
                    'class_0' AS label, 'ann' AS labeler,
                    TIMESTAMPTZ '2025-06-01 00:00:00+00' AS labeled_at,
                    'b' AS batch_id, 'csv' AS source, '' AS request_id
                FROM range({n // 100}) t(i)
            ) TO '{folder}/labels/a.parquet' (FORMAT parquet)
            """
        )
        connection.execute(
            f"""
            COPY (SELECT 'none.png' AS image_id, 'a' AS label, 'b' AS content)
            TO '{folder}/test_set/a.parquet' (FORMAT parquet)
            """
        )
