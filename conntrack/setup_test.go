package conntrack

import (
	"sync"
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

const (
	synAck = packet.TCPSyn | packet.TCPAck
	rstAck = packet.TCPRst | packet.TCPAck
)

// segment is a packet of a handshake: from whom, with which flags, so long after the one before.
type segment struct {
	dir   Dir
	flags uint8
	after time.Duration
}

func TestSetupsAreTimed(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		situation string
		methods   string // of the three: direct routing, tunnelling, NAT
		segments  []segment
		want      time.Duration // the latency then, 0 for none
		settingUp int32
	}{
		{"the SYN alone", "dtn", nil, 0, 1},
		{"SYN, ACK", "dtn", []segment{{In, packet.TCPAck, 3 * ms}}, 3 * ms, 0},
		{"within a tick", "dtn", []segment{{In, packet.TCPAck, ms}}, ms, 0},
		{"later ACKs don't count", "dtn", []segment{{In, packet.TCPAck, 3 * ms}, {In, packet.TCPAck, time.Second}}, 3 * ms, 0},
		{"data with the first ACK", "dtn", []segment{{In, packet.TCPAck | packet.TCPPsh, 70 * ms}}, 70 * ms, 0},
		{"the server's SYN ACK between", "n", []segment{{Out, synAck, 5 * ms}, {In, packet.TCPAck, 20 * ms}}, 25 * ms, 0},
		{"the server repeats its SYN ACK", "n", []segment{{Out, synAck, 5 * ms}, {Out, synAck, 59 * time.Second},
			{In, packet.TCPAck, 6 * time.Second}}, 65005 * ms, 0},
		{"the server refuses", "n", []segment{{Out, rstAck, ms}}, refusedSetup, 0},
		{"the server refuses late", "n", []segment{{Out, rstAck, 7 * time.Second}}, 7 * time.Second, 0},
		{"the client repeats its SYN", "dtn", []segment{{In, packet.TCPSyn, time.Second}}, time.Second, 1},
		{"and has its answer then", "dtn", []segment{{In, packet.TCPSyn, 64 * ms}, {In, packet.TCPAck, 64 * ms}}, 64 * ms, 0},
		{"the client gives up", "dtn", []segment{{In, packet.TCPRst, 5 * ms}}, 0, 0},
		{"the client closes", "dtn", []segment{{In, packet.TCPFin | packet.TCPAck, 5 * ms}}, 0, 0},
		{"no flags", "dtn", []segment{{In, 0, 5 * ms}}, 0, 0},
		{"the clock of another worker is behind", "dtn", []segment{{In, packet.TCPAck, -2 * ms}}, 64, 0},
		{"the client repeats its SYN at once, and is gone", "dtn", []segment{{In, packet.TCPSyn, 0}, {In, packet.TCPSyn, 0}}, 64, 1},
	} {
		for _, method := range c.methods {
			m := map[rune]service.Method{'d': service.Route, 't': service.Tunnel, 'n': service.Masq}[method]
			for _, secure := range []bool{false, true} {
				w := newWorld(t, Config{Shards: 1})
				w.now += int64(7 * time.Millisecond)
				w.SetSettings(Settings{ConnReuseMode: 1, SecureTCP: secure})
				rs := w.server(t, "10.1.0.11:80", m)
				rs.TimeSetups()
				f := flow(service.TCP, "192.0.2.1:1000", "10.9.0.100:80")
				var conn Conn
				if o := w.open(f, rs, &conn); o != Inserted || conn.Packets != 1 {
					t.Fatalf("%s: %v, %d packets", c.situation, o, conn.Packets)
				}
				packets := uint32(1)
				for _, s := range c.segments {
					w.now += int64(s.after)
					if s.dir == In {
						packets++
						w.In(&f, s.flags, w.now, &conn)
					} else {
						answer := answer(f, rs)
						w.Out(&answer, s.flags, w.now, &conn)
					}
					if conn.Packets != packets {
						t.Errorf("%s, %v, secure_tcp %v: %d packets counted, want %d", c.situation, m, secure, conn.Packets, packets)
					}
				}
				d, _ := rs.SetupLatency(w.now)
				if diff := d - c.want; diff > 200*time.Microsecond || diff < -200*time.Microsecond || (d == 0) != (c.want == 0) {
					t.Errorf("%s, %v, secure_tcp %v: latency %v, want %v", c.situation, m, secure, d, c.want)
				}
				if n := rs.SettingUp(); n != c.settingUp {
					t.Errorf("%s, %v, secure_tcp %v: %d set-ups, want %d", c.situation, m, secure, n, c.settingUp)
				}
				w.pass(20 * time.Minute)
				if n, left := rs.SettingUp(), counts(rs); n != 0 || left != [3]int32{} {
					t.Errorf("%s, %v: %d set-ups, counts %v when all is gone", c.situation, m, n, left)
				}
			}
		}
	}
}

func TestSetupsAreTimedOnlyOnRequest(t *testing.T) {
	w := newWorld(t, Config{})
	asking, other := w.server(t, "10.1.0.11:80", service.Route), w.server(t, "10.1.0.12:80", service.Route)
	asking.TimeSetups()
	var c Conn
	for n, rs := range []*service.RealServer{asking, other} {
		for i, make := range []func(n *NewConn){
			func(*NewConn) {},
			func(n *NewConn) { n.Dir = Out },             // FTP's active data connection
			func(n *NewConn) { n.Event = packet.TCPAck }, // sloppy_tcp
			func(n *NewConn) { n.About = true },          // an ICMP error's
			func(n *NewConn) { n.Flow.Proto = uint8(service.UDP) },
			func(n *NewConn) { n.Flow.Proto, n.Flags = uint8(service.UDP), OnePacket },
		} {
			nc := newConn(numbered(service.TCP, 10*n+i), rs, packet.TCPSyn, w.now)
			make(nc)
			before := rs.SettingUp()
			w.Insert(nc, &c)
			want := int32(0)
			if rs == asking && i == 0 {
				want = 1
			}
			if got := rs.SettingUp() - before; got != want {
				t.Errorf("server %v, connection %d: %d set-ups timed, want %d", rs, i, got, want)
			}
		}
	}
}

// A client may repeat its SYN for as long as it likes: the count of packets stays right when it has no room beside the
// time any more.
func TestRepeatedSYNsAreCounted(t *testing.T) {
	w := newWorld(t, Config{})
	rs := w.server(t, "10.1.0.11:80", service.Route)
	rs.TimeSetups()
	f := flow(service.TCP, "192.0.2.1:1000", "10.9.0.100:80")
	var c Conn
	w.open(f, rs, &c)
	for n := uint32(2); n < 3*countMask; n++ {
		w.now += int64(time.Second)
		if w.In(&f, packet.TCPSyn, w.now, &c); c.Packets != n || c.State != SynRecv {
			t.Fatalf("SYN %d: %d packets, state %v", n, c.Packets, c.State)
		}
	}
	if n := rs.SettingUp(); n != 0 {
		t.Errorf("%d set-ups, want the timing given up", n)
	}
}

func TestSetupsOfManyWorkersAreCounted(t *testing.T) {
	w := newWorld(t, Config{Shards: 4})
	rs := w.server(t, "10.1.0.11:80", service.Masq)
	rs.TimeSetups()
	var wg sync.WaitGroup
	for range 3 { // all open the same connections
		wg.Go(func() {
			var c Conn
			for n := range 3000 {
				f := numbered(service.TCP, n)
				w.open(f, rs, &c)
				if n%2 == 0 {
					w.In(&f, packet.TCPAck, w.now+int64(time.Millisecond), &c)
				}
			}
		})
	}
	wg.Wait()
	w.pass(20 * time.Minute)
	if n, left := rs.SettingUp(), counts(rs); n != 0 || left != [3]int32{} {
		t.Errorf("%d set-ups, counts %v when all is gone", n, left)
	}
}
