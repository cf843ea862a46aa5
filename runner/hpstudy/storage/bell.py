"""Noticing that trials have begun or ended without reading them.

On PostgreSQL the database tells: a trigger on Optuna's table notifies in the transaction of the trial, whoever writes
it, plain Optuna among them, and without a round trip. Everywhere, one query tells of many studies whether to look.

Every role of a database may listen to every channel, and may notify: so what is told is a word that only those know
who know the study's uid, and it is good for nothing but a reason to look.
"""

import hashlib
from collections.abc import Collection

from sqlalchemy import BindParameter, bindparam, text
from sqlalchemy.engine import Connection

from hpstudy.storage import attributes

CHANNEL = "hpstudy"
"""Of ``listen`` and ``notify``."""
Pulse = tuple[int, int, int]
"""Trials of a study: all, those that have begun, those that have ended. No trial goes back: equal means that none
moved."""

_TRIGGER = "hpstudy_moved"
_LOCK_SECONDS = "2s"
"""How long the trigger's making may wait for the table, and make others wait."""
_BODY = f"""
declare word text;
begin
  if tg_op = 'UPDATE' and new.state = old.state then return null; end if;
  select trim(both '"' from value_json) into word from study_user_attributes
    where study_id = new.study_id and key = '{attributes.BELL}';
  if word is not null then perform pg_notify('{CHANNEL}', word); end if;
  return null;
end
"""  # noqa: S608
# Not "update of state": PostgreSQL would refuse a later version of Optuna to change that column's type.
_FUNCTION = f"""
create or replace function {_TRIGGER}() returns trigger language plpgsql set search_path from current as $${_BODY}$$
"""
_MAKE_TRIGGER = f"""
create trigger {_TRIGGER} after insert or update on trials for each row execute function {_TRIGGER}()
"""
_INSTALLED = text(
    """
    select p.prosrc from pg_trigger t join pg_proc p on p.oid = t.tgfoid
    where t.tgrelid = to_regclass('trials') and t.tgname = :trigger
    """
)
_NAMES: BindParameter[Collection[str]] = bindparam("names", expanding=True)
_PULSES = text(
    """
    select s.study_name, count(t.trial_id), count(t.datetime_start), count(t.datetime_complete) from studies s
    left join trials t on t.study_id = s.study_id
    where s.study_name in :names group by s.study_name
    """
).bindparams(_NAMES)


def word_of(uid: str) -> str:
    """What is told of the study with this uid: 122 random bits that a digest hides."""
    return hashlib.sha256(f"hpstudy/{uid}".encode()).hexdigest()[:32]


def hang(connection: Connection) -> bool:
    """Have the database tell; False where it cannot. For studies without a word it stays silent.

    Raises:
        sqlalchemy.exc.DBAPIError: the role may not make a trigger, or the table was locked for too long.
    """
    if connection.dialect.name != "postgresql":
        return False
    body = connection.scalar(_INSTALLED, {"trigger": _TRIGGER})
    if body != _BODY:
        connection.execute(text(f"set local lock_timeout = '{_LOCK_SECONDS}'"))
        connection.execute(text(_FUNCTION))
    if body is None:
        connection.execute(text(_MAKE_TRIGGER))
    connection.commit()
    return True


def read_pulses(connection: Connection, names: Collection[str]) -> dict[str, Pulse]:
    """The pulses of the studies among these that exist."""
    rows = connection.execute(_PULSES, {"names": list(names)})
    return {name: (int(all_), int(begun), int(ended)) for name, all_, begun, ended in rows}
