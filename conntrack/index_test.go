package conntrack

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

func TestBucketMatch(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100000 {
		var b bucket
		for i := range b {
			b[i] = byte(random.Uint32N(4)) * byte(random.Uint32N(2)*127+1) // few values, many equal, near-misses among them
		}
		for _, tag := range []uint8{0, 1, 2, 3, 128, 255} {
			var want uint32
			for i := range bucketItems {
				if b[i] == tag {
					want |= 1 << i
				}
			}
			if got := b.match(tag); got != want {
				t.Fatalf("% x: match(%d) = %012b, want %012b", b[:bucketItems], tag, got, want)
			}
		}
	}
}

// TestIndexGrowsAndShrinks puts many entries into one shard and takes them out again, against a map.
func TestIndexGrowsAndShrinks(t *testing.T) {
	w := newWorld(t, Config{Shards: 1})
	rs := w.server(t, "10.1.0.11:80", service.Masq)
	random := rand.New(rand.NewPCG(3, 4))
	twin := map[packet.Flow]ID{}
	var flows []packet.Flow
	var c Conn
	check := func(f packet.Flow, a packet.Flow) {
		t.Helper()
		id, there := twin[f]
		if found := w.Find(&f, In, w.now, &c); found != there || found && c.ID != id {
			t.Fatalf("Find %v = %v %#x, want %v %#x", f, found, c.ID, there, id)
		}
		if found := w.Find(&a, Out, w.now, &c); found != there || found && c.ID != id {
			t.Fatalf("Find answer %v = %v %#x, want %v %#x", a, found, c.ID, there, id)
		}
	}
	for round := range 4 {
		for range 12000 {
			f := numbered(service.TCP, random.IntN(1<<20))
			if _, there := twin[f]; there {
				continue
			}
			if o := w.open(f, rs, &c); o != Inserted {
				t.Fatalf("Insert = %v", o)
			}
			twin[f] = c.ID
			flows = append(flows, f)
			check(f, answer(f, rs))
		}
		random.Shuffle(len(flows), func(i, j int) { flows[i], flows[j] = flows[j], flows[i] })
		for _, f := range flows {
			check(f, answer(f, rs))
		}
		s := &w.conns[0]
		if s.items != uint32(2*len(flows)) {
			t.Fatalf("%d items, want %d", s.items, 2*len(flows))
		}
		drop := len(flows) / 2
		if round == 3 {
			drop = len(flows)
		}
		for _, f := range flows[:drop] {
			w.In(&f, packet.TCPRst|packet.TCPAck, w.now, &c)
			w.In(&f, packet.TCPAck, w.now, &c)
			w.In(&f, packet.TCPRst, w.now, &c) // CLOSE
			if o := w.In(&f, packet.TCPSyn, w.now, &c); o != MissReused {
				t.Fatalf("SYN in CLOSE: %v", o)
			}
			delete(twin, f)
			check(f, answer(f, rs))
		}
		flows = flows[drop:]
		w.settle()
	}
	s := &w.conns[0]
	if free := s.overCount; free != s.overFresh {
		t.Errorf("%d of %d overflow buckets are free in the empty index", free, s.overFresh)
	}
	t.Logf("%d buckets, %d overflow buckets at most", s.n, s.overFresh)
}

// TestNewestAnswersFirst: connections of one client port to several VIPs on one server look alike from the server's side.
func TestNewestAnswersFirst(t *testing.T) {
	w := newWorld(t, Config{Shards: 1})
	rs := w.server(t, "10.1.0.11:80", service.Masq)
	a := answer(flow(service.TCP, "192.0.2.1:1000", "10.9.0.100:80"), rs)
	var c Conn
	var ids []ID
	f := flow(service.TCP, "192.0.2.1:1000", "10.9.0.100:80")
	for i := range 40 {
		// Others in between, so that chains split and entries move.
		for j := range 50 {
			other := numbered(service.TCP, 1000*i+j)
			w.open(other, rs, &c)
			if j%3 == 0 { // and leave a hole
				w.In(&other, packet.TCPAck, w.now, &c)
				w.In(&other, packet.TCPRst, w.now, &c)
				w.In(&other, packet.TCPSyn, w.now, &c)
			}
		}
		f.Dst = packet.AddrFrom4(0x0a090064 + uint32(i))
		w.open(f, rs, &c)
		ids = append(ids, c.ID)
		if !w.Find(&a, Out, w.now, &c) || c.ID != ids[i] {
			t.Fatalf("the answer belongs to %v, want the newest connection", c.Virtual)
		}
	}
	for i := 39; i >= 0; i-- {
		f.Dst = packet.AddrFrom4(0x0a090064 + uint32(i))
		for _, flags := range []uint8{packet.TCPAck, packet.TCPRst, packet.TCPSyn} {
			w.In(&f, flags, w.now, &c)
		}
		found := w.Find(&a, Out, w.now, &c)
		if found != (i > 0) || found && c.ID != ids[i-1] {
			t.Fatalf("after the newest is gone the answer belongs to %v (%v), want the next", c.Virtual, found)
		}
	}
}

// TestNewestAnswersFirstBehindHoles: an older one must not move into a hole that is found before the newest.
func TestNewestAnswersFirstBehindHoles(t *testing.T) {
	w := newWorld(t, Config{Shards: 1})
	s := &w.conns[0]
	const hash = 7 << 56 // bucket 0
	entryOf := func(client uint32) uint32 {
		if !s.reserve(&w.pool) {
			t.Fatal("no memory")
		}
		slot, e := s.take()
		e.setPorts(6, 1000, 80, 80)
		s.setTuple(slot, e, packet.AddrFrom4(client), packet.AddrFrom4(9), packet.AddrFrom4(8))
		return slot
	}
	var others []uint32
	for i := range uint32(bucketItems) {
		others = append(others, entryOf(100+i))
		s.add(others[i], Out, hash)
	}
	k := Key{hash: hash, client: 1, cport: 1000, proto: 6, other: 8, oport: 80, dir: Out, kind: keyIPv4}
	older, newer := entryOf(1), entryOf(1)
	s.add(older, Out, hash)
	s.remove(others[3], Out, hash)
	s.add(newer, Out, hash)
	if slot, _ := s.find(&k); slot != newer {
		t.Errorf("entry %d found, want the newer one, %d", slot, newer)
	}
	s.remove(newer, Out, hash)
	if slot, _ := s.find(&k); slot != older {
		t.Errorf("entry %d found, want the older one, %d", slot, older)
	}
}

func TestStaleIDsAreRecognised(t *testing.T) {
	w := newWorld(t, Config{Shards: 1})
	rs := w.server(t, "10.1.0.11:80", service.Route)
	f := flow(service.UDP, "192.0.2.1:1000", "10.9.0.100:53")
	seen := map[ID]bool{}
	var c, d Conn
	for range 100 {
		w.open(f, rs, &c)
		if seen[c.ID] || c.ID == 0 {
			t.Fatalf("ID %#x given out again", c.ID)
		}
		for id := range seen {
			if w.Lookup(id, w.now, &d) {
				t.Fatalf("stale ID %#x names %+v", id, d)
			}
		}
		seen[c.ID] = true
		if !w.Lookup(c.ID, w.now, &d) || d != c {
			t.Fatalf("Lookup(%#x) = %+v, want %+v", c.ID, d, c)
		}
		w.pass(301 * time.Second)
	}
	if fresh := w.conns[0].fresh; fresh != 2 {
		t.Errorf("%d slots used, want one, again and again", fresh-1)
	}
	for _, id := range []ID{1, 1 << 63, ^ID(0), connID(1, 900, 1), templateID(60<<slotBits|1, 1), connID(1, 0, maxSlots-1)} {
		if w.Lookup(id, w.now, &d) {
			t.Errorf("ID %#x names an entry", id)
		}
	}
}

func TestHashTellsTuplesApart(t *testing.T) {
	w := newWorld(t, Config{})
	k := &w.hash
	v6 := func(hi, lo uint64) packet.Addr {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:8], hi)
		binary.BigEndian.PutUint64(b[8:], lo)
		return packet.AddrFrom16(&b)
	}
	seen := map[uint64]bool{}
	for _, addr := range []packet.Addr{v6(0, 1), v6(1, 0), v6(1, 1), v6(2, 1), packet.AddrFrom4(1), packet.AddrFrom4(2)} {
		for _, port := range []uint16{0, 1, 2} {
			for _, proto := range []uint8{6, 17} {
				h := k.client(proto, addr, port)
				if seen[h] {
					t.Errorf("client %v port %d protocol %d has the hash of another", addr, port, proto)
				}
				seen[h] = true
			}
			for _, dir := range []Dir{In, Out} {
				h := k.tuple(1<<63|12345, dir, addr, port)
				if seen[h] {
					t.Errorf("tuple %v port %d %v has the hash of another", addr, port, dir)
				}
				seen[h] = true
			}
		}
	}
}
