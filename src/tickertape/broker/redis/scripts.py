"""The Lua scripts that Redis runs: each atomic step is one script.

A log named ``{prefix}`` is these keys. The braces are a hash tag, which puts all of them on one node of a cluster:

- ``{prefix}:meta``, a hash: ``epoch``, ``newest`` (the offset), ``keys`` (the number of them in all records that are
  kept), the server that the epoch is bound to: ``replid``, ``run_id``, ``durable``, and of the records of topics
  without a rule: ``kept`` (their number), ``bytes``, ``dropped`` (the newest offset that is gone) and ``from`` (an
  offset before which there are none); ``ruled`` is the number of all others;
- ``{prefix}:log:<epoch>``, a stream with the ids ``<offset>-0`` and the fields ``t`` topic, ``e`` event type,
  ``d`` data, ``k`` idempotency key, ``a`` the server's time in milliseconds, and ``l`` the rule, for topics with
  one. ``e`` and ``k`` start with ``+``, or are empty if there is none: Redis stores the names of fields once if they
  are the same in each entry;
- ``{prefix}:lanes``, a hash from the pattern of each rule to ``<kept>,<bytes>,<dropped>``;
- ``{prefix}:lane:<pattern>``, a sorted set of the offsets of a rule's records;
- ``{prefix}:topic:<topic>``, a list of the offsets of a topic with a rule;
- ``{prefix}:discarded``, a sorted set of discarded topics by the newest offset that was discarded;
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

local function offset_of(entry) return tonumber(string.match(entry[1], '%d+')) end

local function lane_of(fields) return fields[12] or '' end

-- Returns the offset of the first entry that is not older than an age; one after the last entry if all are.
local function cutoff(log, newest, age)
  local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  if not first or age < 0 then return first and offset_of(first) or newest + 1 end
  local deadline = now() - age
  local function expired(entry) return tonumber(entry[2][10] or '0') < deadline end
  local low, high = offset_of(first), newest + 1
  if not expired(first) then return low end
  while low < high do
    local middle = math.floor((low + high) / 2)
    local entry = redis.call('XRANGE', log, text(middle) .. '-0', '+', 'COUNT', 1)[1]
    if entry and expired(entry) then low = offset_of(entry) + 1 else high = middle end
  end
  return low
end

local function parse_lane(value)
  local kept, bytes, dropped = string.match(value or '', '(%d+),(%d+),(%d+)')
  return {kept = tonumber(kept or '0'), bytes = tonumber(bytes or '0'), dropped = tonumber(dropped or '0')}
end

-- Returns all lanes that the log has, by the patterns of their rules.
local function lanes_of(prefix)
  local found, lanes = redis.call('HGETALL', prefix .. 'lanes'), {}
  for i = 1, #found, 2 do lanes[found[i]] = parse_lane(found[i + 1]) end
  return lanes
end

-- Returns the newest offset that topics without a rule have dropped, entries included that are only too old.
local function dropped_others(log, newest, dropped, from, age)
  if age < 0 then return dropped end
  local at = cutoff(log, newest, age) - 1
  for _ = 1, 10 do
    if at < from then return dropped end
    local page = redis.call('XREVRANGE', log, text(at) .. '-0', text(from) .. '-0', 'COUNT', 100)
    if #page == 0 then return dropped end
    for _, entry in ipairs(page) do
      at = offset_of(entry)
      if lane_of(entry[2]) == '' then return at end
    end
    at = at - 1
  end
  return at
end

-- Returns the marks by lane, '' for topics without a rule, and the offset of the oldest entry that is not dropped.
-- ages has the greatest age of each lane in ms (-1 for none); a lane without a rule has that of ''.
local function view(prefix, log, meta, ages)
  local newest = tonumber(meta.newest)
  local marks, oldest = {}, newest + 1
  local cutoffs = {}
  for name, lane in pairs(lanes_of(prefix)) do
    local age, mark, key = ages[name] or ages[''], lane.dropped, prefix .. 'lane:' .. name
    if lane.kept > 0 then
      if age >= 0 then
        cutoffs[age] = cutoffs[age] or cutoff(log, newest, age)
        local old = redis.call('ZREVRANGEBYSCORE', key, text(cutoffs[age] - 1), '-inf', 'LIMIT', 0, 1)[1]
        if old then mark = math.max(mark, tonumber(old)) end
      end
      -- Not after the mark: that may be the one of a discarded topic, and other topics may have older records.
      local low = age >= 0 and text(cutoffs[age]) or '-inf'
      local first = redis.call('ZRANGEBYSCORE', key, low, '+inf', 'LIMIT', 0, 1)[1]
      if first then oldest = math.min(oldest, tonumber(first)) end
    end
    marks[name] = mark
  end
  marks[''] = dropped_others(log, newest, tonumber(meta.dropped or '0'), tonumber(meta.from or '1'), ages[''])
  local at = math.max(marks[''] + 1, tonumber(meta.from or '1'))
  while at < oldest do
    local page = redis.call('XRANGE', log, text(at) .. '-0', text(oldest) .. '-0', 'COUNT', 100)
    if #page == 0 then break end
    for _, entry in ipairs(page) do
      at = offset_of(entry) + 1
      if lane_of(entry[2]) == '' then
        oldest = math.min(oldest, at - 1)
        break
      end
    end
  end
  return marks, oldest, cutoffs
end

-- Returns the same as a flat list: the oldest offset, the number of marks, the marks, and those of discarded topics.
local function describe(prefix, marks, oldest)
  local found = {oldest, 0}
  for name, mark in pairs(marks) do
    found[2] = found[2] + 1
    found[#found + 1], found[#found + 2] = name, text(mark)
  end
  for _, each in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'discarded', text(oldest), '+inf', 'WITHSCORES')) do
    found[#found + 1] = each
  end
  return found
end

local function hash(key)
  local found, values = redis.call('HGETALL', key), {}
  for i = 1, #found, 2 do values[found[i]] = found[i + 1] end
  return values
end
"""

APPEND: Final = Script(
    _PRELUDE
    + """
-- KEYS: meta, log, keys
-- ARGV: epoch, prefix, most removals, the limits of each lane as JSON: most events, most bytes, greatest age in ms (-1
--       for no limit); those of topics without a rule, the lanes of the drafts as JSON, or '' if none has a rule; then
--       topic, event, data, key of each draft
-- Returns the offsets, or nil if the epoch is another one, is bound to another server, or has lost something.
local meta, log, keys, prefix = KEYS[1], KEYS[2], KEYS[3], ARGV[2]
local known = redis.call(
  'HMGET', meta, 'epoch', 'newest', 'bytes', 'replid', 'keys', 'kept', 'dropped', 'from', 'ruled')
if known[1] ~= ARGV[1] or redis.call('EXISTS', log) == 0 or redis.call('HLEN', keys) ~= tonumber(known[5] or '-1') then
  return false
end
local info = redis.call('INFO', 'replication')
if string.match(info, 'master_replid:(%w+)') ~= known[4] or not string.find(info, 'role:master', 1, true) then
  return false
end

local newest, keyed = tonumber(known[2]), tonumber(known[5])
local others = {kept = tonumber(known[6]), bytes = tonumber(known[3]), dropped = tonumber(known[7])}
local from = tonumber(known[8])
local time = now()
local ruled, names = tonumber(known[9] or '0'), ARGV[8] ~= '' and cjson.decode(ARGV[8])
local limits, lanes, changed = {}, {}, {}
if ruled > 0 or names then limits, lanes = cjson.decode(ARGV[4]), lanes_of(prefix) end
limits[''] = {tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])}

-- If anything refuses a write (memory, disk, replicas), it refuses the first one: then nothing is written.
local offsets = {}
for i = 9, #ARGV, 4 do
  local topic, event, data, key = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local name = names and names[(i - 5) / 4] or ''
  local before = key ~= '' and redis.call('HGET', keys, key)
  if before then
    offsets[#offsets + 1] = tonumber(before)
  else
    newest = newest + 1
    local id, lane = text(newest), others
    if name == '' then
      redis.call('XADD', log, id .. '-0', 't', topic, 'e', event, 'd', data, 'k', key, 'a', text(time))
    else
      redis.call('XADD', log, id .. '-0', 't', topic, 'e', event, 'd', data, 'k', key, 'a', text(time), 'l', name)
      ruled = ruled + 1
      lanes[name] = lanes[name] or {kept = 0, bytes = 0, dropped = newest - 1}
      lane, changed[name] = lanes[name], true
      redis.call('ZADD', prefix .. 'lane:' .. name, id, id)
      redis.call('RPUSH', prefix .. 'topic:' .. topic, id)
    end
    lane.kept, lane.bytes = lane.kept + 1, lane.bytes + #topic + math.max(#event - 1, 0) + #data
    if key ~= '' then keyed = keyed + redis.call('HSET', keys, key, id) end
    offsets[#offsets + 1] = newest
  end
end

local budget, began = tonumber(ARGV[3]), from

local function surplus(lane, limit, entry)
  return (limit[1] >= 0 and lane.kept > limit[1]) or (limit[2] >= 0 and lane.bytes > limit[2])
    or (limit[3] >= 0 and tonumber(entry[2][10]) < time - limit[3])
end
local function may_be_over(lane, limit)
  return lane.kept > 0 and budget > 0 and (limit[3] >= 0 or (limit[1] >= 0 and lane.kept > limit[1])
    or (limit[2] >= 0 and lane.bytes > limit[2]))
end
local removed, forgotten = {}, {}
local function flush()
  if #removed > 0 and ruled > 0 then redis.call('XDEL', log, unpack(removed)) end
  if #forgotten > 0 then keyed = keyed - redis.call('HDEL', keys, unpack(forgotten)) end
  removed, forgotten = {}, {}
end
local function remove(lane, entry)
  local fields = entry[2]
  lane.kept, lane.bytes = lane.kept - 1, lane.bytes - #fields[2] - math.max(#fields[4] - 1, 0) - #fields[6]
  lane.dropped, budget = math.max(lane.dropped, offset_of(entry)), budget - 1
  if fields[8] ~= '' then forgotten[#forgotten + 1] = fields[8] end
  removed[#removed + 1] = entry[1]
end

local limit, more = limits[''], true
while more and may_be_over(others, limit) do
  local count = math.min(100, budget, math.max(1, limit[1] >= 0 and others.kept - limit[1] or 1))
  local page = redis.call('XRANGE', log, text(from) .. '-0', '+', 'COUNT', count)
  if #page == 0 then break end
  for _, entry in ipairs(page) do
    if lane_of(entry[2]) == '' then
      if not surplus(others, limit, entry) then more = false break end
      remove(others, entry)
    end
    from = offset_of(entry) + 1
  end
  flush()
end
if ruled == 0 and from > began then redis.call('XTRIM', log, 'MINID', '=', text(from)) end

for name, lane in pairs(lanes) do
  local limit, key, more = limits[name] or limits[''], prefix .. 'lane:' .. name, true
  while more and may_be_over(lane, limit) do
    local page = redis.call('ZRANGE', key, 0, math.min(100, budget) - 1)
    if #page == 0 then break end
    local gone = {}
    for _, id in ipairs(page) do
      local entry = redis.call('XRANGE', log, id .. '-0', id .. '-0')[1]
      if entry and not surplus(lane, limit, entry) then more = false break end
      gone[#gone + 1] = id
      if entry then
        remove(lane, entry)
        ruled = ruled - 1
        redis.call('LREM', prefix .. 'topic:' .. entry[2][2], 1, id)
      end
    end
    if #gone > 0 then
      redis.call('ZREM', key, unpack(gone))
      changed[name] = true
    end
    if #removed > 0 then redis.call('XDEL', log, unpack(removed)) end
    removed = {}
    flush()
  end
end
for name in pairs(changed) do
  local lane = lanes[name]
  local value = text(lane.kept) .. ',' .. text(lane.bytes) .. ',' .. text(lane.dropped)
  redis.call('HSET', prefix .. 'lanes', name, value)
end
redis.call('HSET', meta, 'newest', text(newest), 'bytes', text(others.bytes), 'keys', text(keyed),
  'kept', text(others.kept), 'dropped', text(others.dropped), 'from', text(from), 'ruled', text(ruled))
return offsets
"""
)

DISCARD: Final = Script(
    _PRELUDE
    + """
-- KEYS: meta
-- ARGV: prefix, topic, its rule, the offset up to which to remove, most removals, most marks
-- Returns the number of records that were removed.
local meta, prefix, topic = hash(KEYS[1]), ARGV[1], ARGV[2]
if not meta.epoch then return 0 end
local log, keys, list = prefix .. 'log:' .. meta.epoch, prefix .. 'keys:' .. meta.epoch, prefix .. 'topic:' .. topic
local lanes, forgotten, ids, last, count = lanes_of(prefix), {}, {}, 0, 0
for _, id in ipairs(redis.call('LRANGE', list, 0, tonumber(ARGV[5]) - 1)) do
  if tonumber(id) > tonumber(ARGV[4]) then break end
  local entry = redis.call('XRANGE', log, id .. '-0', id .. '-0')[1]
  if entry and entry[2][2] == topic then
    local fields, lane = entry[2], lanes[lane_of(entry[2])]
    if lane then
      lane.kept, lane.bytes = lane.kept - 1, lane.bytes - #fields[2] - math.max(#fields[4] - 1, 0) - #fields[6]
      redis.call('ZREM', prefix .. 'lane:' .. lane_of(fields), id)
    end
    if fields[8] ~= '' then forgotten[#forgotten + 1] = fields[8] end
    ids[#ids + 1] = entry[1]
    last = tonumber(id)
  end
  count = count + 1
end
if count == 0 then return 0 end
redis.call('LTRIM', list, count, -1)
if #ids > 0 then
  redis.call('XDEL', log, unpack(ids))
  redis.call('ZADD', prefix .. 'discarded', text(last), topic)
end
redis.call('HINCRBY', KEYS[1], 'ruled', -#ids)
if #forgotten > 0 then
  redis.call('HINCRBY', KEYS[1], 'keys', -redis.call('HDEL', keys, unpack(forgotten)))
end
-- Beyond their number, the oldest mark becomes that of the rule.
if redis.call('ZCARD', prefix .. 'discarded') > tonumber(ARGV[6]) then
  local old = redis.call('ZRANGE', prefix .. 'discarded', 0, 0, 'WITHSCORES')
  redis.call('ZREM', prefix .. 'discarded', old[1])
  local lane = lanes[ARGV[3]]
  if lane then lane.dropped = math.max(lane.dropped, tonumber(old[2])) end
end
for name, lane in pairs(lanes) do
  local value = text(lane.kept) .. ',' .. text(lane.bytes) .. ',' .. text(lane.dropped)
  redis.call('HSET', prefix .. 'lanes', name, value)
end
return count
"""
)

RULES: Final = Script("""
-- KEYS: meta
-- ARGV: prefix, the patterns of rules
-- Until now, records of a new rule were dropped with the others: readers must not trust older cursors.
local newest = redis.call('HGET', KEYS[1], 'newest') or '0'
for i = 2, #ARGV do redis.call('HSETNX', ARGV[1] .. 'lanes', ARGV[i], '0,0,' .. newest) end
""")

STATE: Final = Script(
    _PRELUDE
    + """
-- KEYS: meta
-- ARGV: the prefix of the log's keys, and the greatest age of each lane in ms (-1 for no limit) as JSON: one argument,
--       since a client without a password may send only ten
-- Returns the binding of the epoch, the oldest offset (-1 if there is no log) and the marks, 1 if its idempotency keys
-- are complete, and the server's description of itself.
local meta, values = redis.call('HMGET', KEYS[1], 'epoch', 'newest', 'replid', 'run_id', 'durable'), hash(KEYS[1])
local found, complete = {-1, 0}, 0
if meta[1] and redis.call('EXISTS', ARGV[1] .. 'log:' .. meta[1]) == 1 then
  local marks, oldest = view(ARGV[1], ARGV[1] .. 'log:' .. meta[1], values, cjson.decode(ARGV[2]))
  found = describe(ARGV[1], marks, oldest)
  if redis.call('HLEN', ARGV[1] .. 'keys:' .. meta[1]) == tonumber(values.keys or '-1') then complete = 1 end
end
return {meta, found, complete, redis.call('INFO', 'replication') .. redis.call('INFO', 'server')}
"""
)

PAGE: Final = Script(
    _PRELUDE
    + """
-- KEYS: meta
-- ARGV: the prefix of the log's keys, the offset to read after, most records, the ages as for STATE
-- Returns epoch, newest offset, the oldest one with the marks, and offset, topic, event, data of each record; nil if
-- there is no log.
local meta = hash(KEYS[1])
if not meta.epoch then return false end
local log, newest = ARGV[1] .. 'log:' .. meta.epoch, tonumber(meta.newest)
if redis.call('EXISTS', log) == 0 then return false end
local ages = cjson.decode(ARGV[4])
local marks, oldest, cutoffs = view(ARGV[1], log, meta, ages)
local start, limit = math.max(tonumber(ARGV[2]) + 1, oldest), tonumber(ARGV[3])
local found = {}
while #found < 4 * limit do
  local page = redis.call('XRANGE', log, text(start) .. '-0', '+', 'COUNT', limit - #found / 4)
  if #page == 0 then break end
  for _, entry in ipairs(page) do
    local at, fields, offset = #found, entry[2], offset_of(entry)
    local name = lane_of(fields)
    -- Marks of rules may also be those of discarded topics: only the age says which entries count as gone.
    local gone = name == '' and offset <= marks['']
    if name ~= '' then gone = offset < (cutoffs[ages[name] or ages['']] or 0) end
    if not gone then
      found[at + 1], found[at + 2] = text(offset), fields[2] or ''
      found[at + 3], found[at + 4] = fields[4] or '', fields[6] or ''
    end
    start = offset + 1
  end
end
return {meta.epoch, newest, describe(ARGV[1], marks, oldest), found}
"""
)

BIND: Final = Script("""
-- KEYS: meta, log and keys of the current epoch, log and keys of the next one
-- ARGV: the epoch and the replid that the meta had ('' for none), the server's replid, the next epoch, run_id, durable,
--       the prefix
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
  redis.call('HSET', meta, 'newest', '0', 'bytes', '0', 'kept', '0', 'dropped', '0', 'from', '1', 'ruled', '0')
  for _, name in ipairs(redis.call('HKEYS', ARGV[7] .. 'lanes')) do redis.call('DEL', ARGV[7] .. 'lane:' .. name) end
  redis.call('DEL', ARGV[7] .. 'lanes', ARGV[7] .. 'discarded')
end
redis.call('HSET', meta, 'keys', redis.call('HLEN', KEYS[5]))
return 1
""")
