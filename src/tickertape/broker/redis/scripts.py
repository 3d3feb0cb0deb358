"""The Lua scripts that Redis runs: each atomic step is one script.

A log named ``{prefix}`` is these keys. The braces are a hash tag, which puts all of them on one node of a cluster:

- ``{prefix}:meta``, a hash: ``epoch``, ``newest`` (the offset), ``bytes`` and ``keys`` (the number of each in the
  records that are kept), and the server that the epoch is bound to: ``replid``, ``run_id``, ``durable``;
- ``{prefix}:log:<epoch>``, a stream with the ids ``<offset>-0`` and the fields ``t`` topic, ``e`` event type,
  ``d`` data, ``k`` idempotency key, ``a`` the server's time in milliseconds. ``e`` and ``k`` start with ``+``, or are
  empty if there is none: Redis stores the names of fields once if they are the same in each entry;
- ``{prefix}:keys:<epoch>``, a hash from idempotency keys to offsets.

The epoch in the names is a fence, too: a reader of one epoch can never receive a record of another.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final


class Script:
    """A script, and the digest by which the server remembers it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


_PRELUDE: Final = """
local function text(number) return string.format('%.0f', number) end

local function now()
  local clock = redis.call('TIME')
  return clock[1] * 1000 + math.floor(clock[2] / 1000)
end

-- Returns the offset of the oldest record that is not too old. Older ones may wait for an append to remove them.
local function oldest(log, newest, age)
  local low, high = newest - redis.call('XLEN', log) + 1, newest + 1
  if age < 0 then return low end
  local deadline = now() - age
  local function expired(offset)
    local entry = redis.call('XRANGE', log, text(offset) .. '-0', text(offset) .. '-0')[1]
    return not entry or tonumber(entry[2][10] or '0') < deadline
  end
  if low == high or not expired(low) then return low end
  while low < high do
    local middle = math.floor((low + high) / 2)
    if expired(middle) then low = middle + 1 else high = middle end
  end
  return low
end
"""

APPEND: Final = Script(
    _PRELUDE
    + """
-- KEYS: meta, log, keys
-- ARGV: epoch, most events, most bytes, greatest age in ms (-1 for no limit), most removals,
--       then topic, event, data, key of each draft
-- Returns the offsets, or nil if the epoch is another one, is bound to another server, or has lost something.
local meta, log, keys = KEYS[1], KEYS[2], KEYS[3]
local known = redis.call('HMGET', meta, 'epoch', 'newest', 'bytes', 'replid', 'keys')
if known[1] ~= ARGV[1] or redis.call('EXISTS', log) == 0 or redis.call('HLEN', keys) ~= tonumber(known[5] or '-1') then
  return false
end
local info = redis.call('INFO', 'replication')
if string.match(info, 'master_replid:(%w+)') ~= known[4] or not string.find(info, 'role:master', 1, true) then
  return false
end

local newest, bytes, keyed = tonumber(known[2]), tonumber(known[3]), tonumber(known[5])
local time = now()

-- If anything refuses a write (memory, disk, replicas), it refuses the first one: then nothing is written.
local offsets = {}
for i = 6, #ARGV, 4 do
  local topic, event, data, key = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local before = key ~= '' and redis.call('HGET', keys, key)
  if before then
    offsets[#offsets + 1] = tonumber(before)
  else
    newest = newest + 1
    bytes = bytes + #topic + math.max(#event - 1, 0) + #data
    redis.call('XADD', log, text(newest) .. '-0', 't', topic, 'e', event, 'd', data, 'k', key, 'a', text(time))
    if key ~= '' then keyed = keyed + redis.call('HSET', keys, key, text(newest)) end
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
    if not (full() or (age >= 0 and tonumber(fields[10]) < time - age)) then break end
    bytes = bytes - #fields[2] - math.max(#fields[4] - 1, 0) - #fields[6]
    if fields[8] ~= '' then forgotten[#forgotten + 1] = fields[8] end
    kept, removed = kept - 1, removed + 1
  end
  if removed == 0 then break end
  redis.call('XTRIM', log, 'MINID', '=', text(newest - kept + 1))
  if #forgotten > 0 then keyed = keyed - redis.call('HDEL', keys, unpack(forgotten)) end
  budget = budget - removed
  if removed < #page then break end
end
redis.call('HSET', meta, 'newest', text(newest), 'bytes', text(bytes), 'keys', text(keyed))
return offsets
"""
)

STATE: Final = Script(
    _PRELUDE
    + """
-- KEYS: meta
-- ARGV: the prefix of the log's keys, greatest age in ms (-1 for no limit)
-- Returns the binding of the epoch, the oldest offset (-1 if there is no log), 1 if its idempotency keys are
-- complete, and the server's description of itself.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'newest', 'replid', 'run_id', 'durable', 'keys')
local first, complete = -1, 0
if meta[1] and redis.call('EXISTS', ARGV[1] .. 'log:' .. meta[1]) == 1 then
  first = oldest(ARGV[1] .. 'log:' .. meta[1], tonumber(meta[2]), tonumber(ARGV[2]))
  if redis.call('HLEN', ARGV[1] .. 'keys:' .. meta[1]) == tonumber(meta[6] or '-1') then complete = 1 end
end
return {meta, first, complete, redis.call('INFO', 'replication') .. redis.call('INFO', 'server')}
"""
)

PAGE: Final = Script(
    _PRELUDE
    + """
-- KEYS: meta
-- ARGV: the prefix of the log's keys, greatest age in ms (-1 for no limit), the offset to read after, most records
-- Returns epoch, oldest and newest offset, and offset, topic, event, data of each record; nil if there is no log.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'newest')
if not meta[1] then return false end
local log, newest = ARGV[1] .. 'log:' .. meta[1], tonumber(meta[2])
if redis.call('EXISTS', log) == 0 then return false end
local first = oldest(log, newest, tonumber(ARGV[2]))
local start = math.max(tonumber(ARGV[3]) + 1, first)
local found = {meta[1], first, newest}
for _, entry in ipairs(redis.call('XRANGE', log, text(start) .. '-0', '+', 'COUNT', ARGV[4])) do
  local at, fields = #found, entry[2]
  found[at + 1], found[at + 2] = string.match(entry[1], '%d+'), fields[2] or ''
  found[at + 3], found[at + 4] = fields[4] or '', fields[6] or ''
end
return found
"""
)

BIND: Final = Script("""
-- KEYS: meta, log and keys of the current epoch, log and keys of the next one
-- ARGV: the epoch and the replid that the meta had ('' for none), the server's replid, the next epoch, run_id, durable
-- Binds the log to the server. If the next epoch is another one, it begins with the records that are there. Returns 0
-- if any of them has changed.
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
  -- An empty stream cannot be written as such: it is what remains after a consumer group.
  redis.call('DEL', KEYS[3])
  redis.call('XGROUP', 'CREATE', KEYS[4], 'x', '0', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[4], 'x')
  redis.call('HSET', meta, 'newest', '0', 'bytes', '0')
end
redis.call('HSET', meta, 'keys', redis.call('HLEN', KEYS[5]))
return 1
""")
