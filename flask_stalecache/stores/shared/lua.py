"""The scripts for entries and locks, in Lua. Each is atomic, and may run twice. The scripts for the logs are in :mod:`.logs`.

======== ============ ==============================================================================================
key      type         content
======== ============ ==============================================================================================
``e:D``  hash         ``s`` serial, ``q`` seq, ``N`` digests of names, ``h`` head, ``b`` or ``z`` body, ``n`` note; or
                      ``x`` the serial of the removed entry, ``xa`` when it was removed
``l:D``  string       the token of the holder of the lock
======== ============ ==============================================================================================

``D`` is the digest of a key. Numbers of purges, and times without a unit, are microseconds.
"""

from __future__ import annotations

from .logs import BEGIN, CHANGES

_PRELUDE = (
    BEGIN
    + """
local function state()
  local v = redis.call('HMGET', m, 'q', 'p', 'c')
  return {g, v[1] or '0', v[2] or '0', v[3] or '0', text(now)}
end
local function expire(key, ms)
  redis.call('PEXPIRE', key, text(ms))
  local till = now + ms * 1000
  if till > number('x') then redis.call('HSET', m, 'x', text(till)) end
end
local function changed(d, s, host)
  local c = redis.call('HINCRBY', m, 'c', 1)
  redis.call('XADD', P .. 'C', 'MAXLEN', '~', '@CHANGES', text(c) .. '-1', 'd', d, 's', s, 'o', host)
end
local function purged(names, seq, last)
  local bound = last or math.huge
  local soft, at = 0, 0
  for d in string.gmatch(names, '%S+') do
    local v = redis.call('HGET', m, 'n:' .. d)
    if v then
      local h, s, a = string.match(v, '^(%d+) (%d+) (%d+)')
      h, s, a = tonumber(h), tonumber(s), tonumber(a)
      if h > seq and h <= bound then return true, 0 end
      if s > seq and s <= bound and s > soft then soft, at = s, a end
    end
  end
  return false, at
end
""".replace("@CHANGES", str(CHANGES))
)

#: Digest, serial of the caller's entry, milliseconds for which an entry is kept at least after a use.
GET = (
    _PRELUDE
    + """
local e = P .. 'e:' .. ARGV[1]
local v = redis.call('hmget', e, 's', 'q', 'N', 'x', 'xa', 'n')
local note = v[6] or ''
local at = 0
if v[1] then
  local is_purged
  is_purged, at = purged(v[3], tonumber(v[2]))
  if is_purged or tonumber(v[2]) < tonumber(g) then
    redis.call('hdel', e, 's', 'q', 'N', 'h', 'b', 'z')
    v[1] = false
  end
end
local left = redis.call('pttl', e)
if left >= 0 and left < tonumber(ARGV[3]) then expire(e, tonumber(ARGV[3])) end
if not v[1] then
  if v[4] then return {'gone', v[4], note, v[5] or '0', '', '', '', state()} end
  return {'none', '', note, '0', '', '', '', state()}
end
if v[1] == ARGV[2] then return {'same', v[1], note, text(at), '', '', '', state()} end
local w = redis.call('hmget', e, 'h', 'b', 'z')
if not w[1] then return {'none', '', note, '0', '', '', '', state()} end
return {'entry', v[1], note, text(at), w[1], w[2] or '', w[3] or '', state()}
"""
)

#: Digest, token, host, lease in milliseconds.
ACQUIRE = (
    _PRELUDE
    + """
local l = P .. 'l:' .. ARGV[1]
local holder = redis.call('get', l)
if holder and holder ~= ARGV[2] and string.sub(holder, 1, #ARGV[3] + 1) ~= ARGV[3] .. '.' then
  return {0, '', '', '', state()}
end
-- A script may go on to write in a full memory once it has written: locks are small, and needed most then.
redis.call('del', l)
redis.call('set', l, ARGV[2], 'px', ARGV[4])
local v = redis.call('hmget', P .. 'e:' .. ARGV[1], 's', 'n', 'x')
return {1, v[1] or '', v[2] or '', v[3] or '', state()}
"""
)

#: Lease in milliseconds, then digest and token of each lock.
RENEW = (
    _PRELUDE
    + """
local lost = {}
for i = 2, #ARGV, 2 do
  local l = P .. 'l:' .. ARGV[i]
  if redis.call('get', l) == ARGV[i + 1] then redis.call('pexpire', l, ARGV[1]) else lost[#lost + 1] = ARGV[i] end
end
return lost
"""
)

#: Digest, token.
RELEASE = (
    _PRELUDE
    + """
local l = P .. 'l:' .. ARGV[1]
if redis.call('get', l) == ARGV[2] then return redis.call('del', l) end
return 0
"""
)

#: Digest, token or "", serial seen with the lock, seq, serial, digests of names, milliseconds to keep, host, head, body, and the
#: field of the body: ``b``, ``z`` (compressed) or ``-`` (too large: only the host that made it has it).
WRITE = (
    _PRELUDE
    + """
local e, seq = P .. 'e:' .. ARGV[1], tonumber(ARGV[4])
if purged(ARGV[6], seq) then return {'purged', state()} end
if ARGV[2] ~= '' then
  local holder, old = redis.call('get', P .. 'l:' .. ARGV[1]), redis.call('hget', e, 's') or ''
  if holder ~= ARGV[2] and (holder or old ~= ARGV[3]) then return {'superseded', state()} end
end
if ARGV[11] == '-' then
  redis.call('hset', e, 's', ARGV[5], 'q', ARGV[4], 'N', ARGV[6])
  redis.call('hdel', e, 'h', 'b', 'z', 'x', 'xa')
else
  redis.call('hset', e, 's', ARGV[5], 'q', ARGV[4], 'N', ARGV[6], 'h', ARGV[9], ARGV[11], ARGV[10])
  redis.call('hdel', e, ARGV[11] == 'b' and 'z' or 'b', 'x', 'xa')
end
if seq > number('q') then redis.call('hset', m, 'q', text(seq)) end
expire(e, tonumber(ARGV[7]))
changed(ARGV[1], ARGV[11] == '-' and '' or ARGV[5], ARGV[8])
return {'stored', state()}
"""
)

#: Digest, note or "", milliseconds to keep, host, 1 to log the change for the other hosts or 0.
NOTE = (
    _PRELUDE
    + """
local e = P .. 'e:' .. ARGV[1]
if ARGV[2] == '' then
  redis.call('hdel', e, 'n')
else
  redis.call('hset', e, 'n', ARGV[2])
  if redis.call('pttl', e) < tonumber(ARGV[3]) then expire(e, tonumber(ARGV[3])) end
end
if ARGV[5] == '1' then changed(ARGV[1], '', ARGV[4]) end
return state()
"""
)

#: Digest, milliseconds to keep, host.
REMOVE = (
    _PRELUDE
    + """
local e = P .. 'e:' .. ARGV[1]
local s = redis.call('hget', e, 's') or '*'
redis.call('hdel', e, 's', 'q', 'N', 'h', 'b', 'z')
redis.call('hset', e, 'x', s, 'xa', text(now))
if redis.call('pttl', e) < tonumber(ARGV[2]) then expire(e, tonumber(ARGV[2])) end
-- The server may evict what says that it was removed.
changed(ARGV[1], '-' .. text(now), ARGV[3])
return state()
"""
)

#: Digest, serial, seq and digests of names of each entry of this host. Returns what the server has in the place of each.
COMPARE = (
    _PRELUDE
    + """
local found = {}
for i = 1, #ARGV, 4 do
  local v = redis.call('hmget', P .. 'e:' .. ARGV[i], 's', 'x', 'q')
  local said = 'none'
  if purged(ARGV[i + 3], tonumber(ARGV[i + 2])) then said = 'purged'
  elseif v[1] and tonumber(v[3]) >= tonumber(g) then said = v[1] == ARGV[i + 1] and 'same' or 'other'
  elseif v[2] == ARGV[i + 1] then said = 'removed' end
  found[#found + 1] = said
end
return {found, state()}
"""
)

#: The last purge that counts, then digests.
HEADS = (
    _PRELUDE
    + """
local found, bound = {}, tonumber(ARGV[1])
for i = 2, #ARGV do
  local e = P .. 'e:' .. ARGV[i]
  local v = redis.call('HMGET', e, 'h', 'n', 'N', 'q')
  local is_purged, at = true, 0
  if v[1] and tonumber(v[4]) >= tonumber(g) then is_purged, at = purged(v[3], tonumber(v[4]), bound) end
  found[i - 1] = {is_purged and '' or v[1], v[2] or '', text(at)}
end
return found
"""
)
