"""Runs tests of tooz's own, as they were released with it, on the coordinator of a URL.

    TOOZ_TEST_URL=distjob+redis://localhost python tests/tooz_tests.py

prints, as JSON, which have passed, were skipped and have failed, and why. A program of its own:
some of the tests start processes, which load the tests anew.
"""

from __future__ import annotations

import json
import sys
import unittest
from typing import Any

OTHERS = ("started", "stop_first", "connection_error", "heartbeat")
"""What else there is to a coordinator, beside its locks, that is offered."""


def main() -> None:
    from tooz.tests import test_coordination

    loader = unittest.TestLoader()
    names = [
        name
        for name in loader.getTestCaseNames(test_coordination.TestAPI)
        if "lock" in name or any(word in name for word in OTHERS)
    ]
    suite = unittest.TestSuite(test_coordination.TestAPI(name) for name in names)
    result = unittest.TestResult()
    suite.run(result)

    def told(pairs: Any) -> dict[str, str]:
        return {test.id().rpartition(".")[2]: str(why).strip() for test, why in pairs}

    skipped, failed = told(result.skipped), told([*result.errors, *result.failures])
    passed = [name for name in names if name not in skipped and name not in failed]
    found = {"passed": passed, "skipped": skipped, "failed": failed}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
