"""A list of sessions whose processes could not say everything at once is continued without a gap."""

from __future__ import annotations

from datetime import UTC, datetime

from livedocs.http.session_queries import NoSessions
from livedocs.store.inquiries import Answer, Session
from livedocs.store.processes import Process

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def session(number):
    return Session(f"{number:032x}", "user:bob", "Bob", "web", "192.0.2.1", 1000.0 + number, NOW, 0, {})


class Talkative(NoSessions):
    """Two processes with every other session; each says at most three of them at a time."""

    def __init__(self):
        self.asked = []

    async def ask(self, question, *, by=""):
        self.asked.append(by)
        answers = []
        for place in range(2):
            mine = [session(number) for number in range(40) if number % 5 % 2 == place]
            rest = [one for one in mine if question.after is None or one.place > question.after]
            said = tuple(rest[: min(3, question.limit)])
            answers.append(
                (Process(f"p{place}", "host", 1, ""), Answer(said, 20, complete=len(said) == len(rest)))
            )
        return answers, ()


async def test_pages_of_bounded_answers_hold_every_session_once_and_in_order(start_api):
    sessions = Talkative()
    ada = (await start_api(services={"sessions": sessions})).someone("user:ada", scope="livedocs:admin")
    seen, cursor = [], ""
    for _ in range(40):
        page = (await ada.get(f"/v1/admin/sessions?limit=10{cursor}")).json
        seen += [int(one["sid"], 16) for one in page["sessions"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == list(range(40))
    assert set(sessions.asked) == {"user:ada"}
