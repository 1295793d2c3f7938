package dataplane

import (
	"testing"

	"uvs/packet"
)

func TestPathMTUs(t *testing.T) {
	var m pathMTUs
	now := 1000 * second
	check := func(what string, want int) {
		t.Helper()
		if got := m.limit(server11, 1500, now); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	check("nothing reported", 1500)
	m.learn(server11, 1400, now)
	check("a report", 1400)
	m.learn(server11, 9000, now)
	check("a report of more than the way out has", 1500)
	m.learn(server11, 68, now)
	check("a report of less than Linux believes", 552)
	m.learn(server11, 0, now)
	check("a router that knows no path MTUs (RFC 1191 section 3)", 552)
	before := m.all.Load()
	now += second
	m.learn(server11, 100, now)
	if m.all.Load() != before {
		t.Error("the same again made a new map")
	}
	now += int64(pathMTUFresh)
	m.learn(server11, 100, now)
	now += int64(pathMTULife) - 1
	check("renewed", 552)
	now++
	check("forgotten after its time", 1500)
	full := make(map[packet.Addr]pathMTU)
	for i := range uint32(pathMTUMax) {
		full[packet.AddrFrom4(0x0a640000+i)] = pathMTU{1400, now + second}
	}
	m.all.Store(&full)
	m.learn(server11, 1400, now)
	check("more servers than are remembered", 1500)
	now += second
	m.learn(server11, 1400, now)
	check("once others were forgotten", 1400)
	if n := len(*m.all.Load()); n != 1 {
		t.Errorf("%d servers remembered, want 1", n)
	}
}
