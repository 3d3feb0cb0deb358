"""The Lua that Redis runs for us: what must happen at once, happens in one script.

A log named ``{prefix}`` is these keys; the braces are a hash tag, which puts all of them on one node
of a cluster:

- ``{prefix}:meta``, a hash: ``epoch``, ``newest`` (the offset), ``bytes`` (of what is kept), and the
  server that the epoch is bound to: ``replid``, ``run_id``, ``durable``;
- ``{prefix}:log:<epoch>``, a stream with the ids ``<offset>-0`` and the fields ``t`` topic, ``e`` event
  type, ``d`` data, ``k`` idempotency key, ``a`` the server's time in milliseconds. ``e`` and ``k``
  start with ``+``, or are empty when there is none: entries whose fields have the same names are
  stored without the names;
- ``{prefix}:keys:<epoch>``, a hash from idempotency keys to offsets.

The epoch in the names is a fence of its own: whoever reads or blocks on the log of one epoch can never
be given a record of another.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final

__all__ = ["APPEND", "BIND", "STATE", "Script"]


class Script:
    """A script and the name under which the server remembers it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


APPEND: Final = Script("""
-- KEYS: meta, log, keys
-- ARGV: epoch, most events, most bytes, greatest age in ms (-1 for no limit), most removals,
--       then topic, event, data, key of each draft
-- Returns the offsets, or nil if this is not the log, or not the server, that the epoch belongs to.
local meta, log, keys = KEYS[1], KEYS[2], KEYS[3]
local known = redis.call('HMGET', meta, 'epoch', 'newest', 'bytes', 'replid')
if known[1] ~= ARGV[1] or redis.call('EXISTS', log) == 0 then return false end
local info = redis.call('INFO', 'replication')
if string.match(info, 'master_replid:(%w+)') ~= known[4] or not string.find(info, 'role:master', 1, true) then
  return false
end

local newest, bytes = tonumber(known[2]), tonumber(known[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function text(number) return string.format('%.0f', number) end

-- All that could refuse a write (memory, disk, replicas) refuses the first one: then nothing is written.
local offsets = {}
for i = 6, #ARGV, 4 do
  local topic, event, data, key = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local before = key ~= '' and redis.call('HGET', keys, key)
  if before then
    offsets[#offsets + 1] = tonumber(before)
  else
    newest = newest + 1
    bytes = bytes + #topic + math.max(#event - 1, 0) + #data
    redis.call('XADD', log, text(newest) .. '-0', 't', topic, 'e', event, 'd', data, 'k', key, 'a', text(now))
    if key ~= '' then redis.call('HSET', keys, key, text(newest)) end
    offsets[#offsets + 1] = newest
  end
end

local events, size, age, budget = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local kept = redis.call('XLEN', log)
local function full() return (events >= 0 and kept > events) or (size >= 0 and bytes > size) end
while kept > 0 and budget > 0 and (full() or age >= 0) do
  local count = math.min(100, budget, math.max(1, events >= 0 and kept - events or 1))
  local page = redis.call('XRANGE', log, '-', '+', 'COUNT', count)
  local removed, forgotten = 0, {}
  for _, entry in ipairs(page) do
    local fields = entry[2]
    if not (full() or (age >= 0 and tonumber(fields[10]) < now - age)) then break end
    bytes = bytes - #fields[2] - math.max(#fields[4] - 1, 0) - #fields[6]
    if fields[8] ~= '' then forgotten[#forgotten + 1] = fields[8] end
    kept, removed = kept - 1, removed + 1
  end
  if removed == 0 then break end
  redis.call('XTRIM', log, 'MINID', '=', text(newest - kept + 1))
  if #forgotten > 0 then redis.call('HDEL', keys, unpack(forgotten)) end
  budget = budget - removed
  if removed < #page then break end
end
redis.call('HSET', meta, 'newest', text(newest), 'bytes', text(bytes))
return offsets
""")

STATE: Final = Script("""
-- KEYS: meta
-- ARGV: what the log's key starts with
-- Returns what the log is bound to, how many records it keeps (-1 for no log), and what the server is.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'newest', 'replid', 'run_id', 'durable')
local kept = -1
if meta[1] then
  local log = ARGV[1] .. meta[1]
  if redis.call('EXISTS', log) == 1 then kept = redis.call('XLEN', log) end
end
return {meta, kept, redis.call('INFO', 'replication') .. redis.call('INFO', 'server')}
""")

BIND: Final = Script("""
-- KEYS: meta, log and keys of the epoch before, log and keys of the epoch from now on
-- ARGV: the epoch and the replid that the meta has had ('' for none), the server's replid,
--       the epoch from now on, run_id, durable
-- Binds the log to the server; in another epoch, with the records that are there. Returns 0 if any of
-- it has changed meanwhile.
local meta = KEYS[1]
local known = redis.call('HMGET', meta, 'epoch', 'replid', 'newest')
if (known[1] or '') ~= ARGV[1] or (known[2] or '') ~= ARGV[2] then return 0 end
if string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') ~= ARGV[3] then return 0 end
redis.call('HSET', meta, 'epoch', ARGV[4], 'replid', ARGV[3], 'run_id', ARGV[5], 'durable', ARGV[6])
if ARGV[1] == ARGV[4] then return 1 end
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('RENAME', KEYS[2], KEYS[4])
  if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('RENAME', KEYS[3], KEYS[5]) end
else
  -- An empty stream cannot be written as such: it is what a consumer group leaves behind.
  redis.call('DEL', KEYS[3])
  redis.call('XGROUP', 'CREATE', KEYS[4], 'x', '0', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[4], 'x')
  redis.call('HSET', meta, 'newest', '0', 'bytes', '0')
end
return 1
""")
