package conformance

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestCountsReturnToZero drives every scheduler, with all three methods at once, through random handshakes, closes, resets
// and datagrams while servers are edited, quiesced, removed and added; when all connections have had their time, no server
// counts any, and the table is empty. At no time does a packet reach a server that may have no new connection, unless it
// belongs to an older one.
func TestCountsReturnToZero(t *testing.T) {
	for _, name := range []string{"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "mh", "fo", "ovf", "twos", "rt"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := NewDirector()
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			w := &crowd{t: t, d: d, b: NewBuilder(new(Trace)), r: rand.New(rand.NewPCG(1, 9))}
			w.adm("--set 60 60 60")
			w.adm("-A -t 10.9.0.100:80 -s " + name)
			w.adm("-A -u 10.9.0.100:53 -s " + name)
			for n := range 4 {
				w.add(n)
			}
			for range 1500 {
				w.step()
			}
			if w.opened < 100 {
				t.Errorf("only %d connections were made: the test shows little", w.opened)
			}
			d.Pass(3 * time.Minute)
			counts, err := d.Counts()
			if err != nil {
				t.Fatal(err)
			}
			for vs, list := range counts {
				for _, rs := range list {
					if rs[3] != 0.0 || rs[4] != 0.0 {
						t.Errorf("%s: %v at the end, want no connections", vs, rs)
					}
				}
			}
			if st := d.conns.Stats(); st.Conns != 0 || st.Inserts != st.Expirations {
				t.Errorf("%d connections in the table at the end, %d made and %d gone", st.Conns, st.Inserts, st.Expirations)
			}
		})
	}
}

// crowd is many clients and an administrator.
type crowd struct {
	t      *testing.T
	d      *Director
	b      *Builder
	r      *rand.Rand
	opened int // connections
}

// methods are those of the servers 10.1.0.11 to 10.1.0.14.
var methods = [4]string{"-m", "-g", "-i", "-m"}

func (w *crowd) adm(line string) (ok bool) {
	_, stderr, status := w.d.IPVSAdm(line, "")
	if status != 0 && !strings.Contains(stderr, "already exists") && !strings.Contains(stderr, "No such destination") {
		w.t.Fatalf("ipvsadm %s: %s", line, stderr)
	}
	return status == 0
}

func (w *crowd) add(n int) {
	for _, vs := range []struct{ name, port string }{{"-t 10.9.0.100:80", "80"}, {"-u 10.9.0.100:53", "53"}} {
		w.adm(fmt.Sprintf("-a %s -r 10.1.0.%d:%s %s -w %d -x %d", vs.name, 11+n, vs.port, methods[n], w.r.IntN(4), w.r.IntN(2)*40))
	}
}

func (w *crowd) step() {
	n := w.r.IntN(4)
	client := fmt.Sprintf("192.0.2.%d:%d", 1+w.r.IntN(20), 1000+w.r.IntN(5))
	switch x := w.r.IntN(40); {
	case x == 0:
		w.adm(fmt.Sprintf("-d -t 10.9.0.100:80 -r 10.1.0.%d:80", 11+n))
	case x == 1:
		w.add(n)
	case x == 2:
		w.adm(fmt.Sprintf("-e -t 10.9.0.100:80 -r 10.1.0.%d:80 %s -w %d", 11+n, methods[n], w.r.IntN(5)))
	case x < 6:
		w.d.Pass(time.Duration(w.r.IntN(3000)) * time.Millisecond)
	case x < 10:
		w.inject(&Step{Pkt: "udp", Dir: "cl", C: client, V: "10.9.0.100:53"})
	case x < 16: // a NAT server's side
		kind := []string{"synack", "ack", "data", "fin", "rst"}[w.r.IntN(5)]
		w.inject(&Step{Pkt: kind, Dir: "rs", S: fmt.Sprintf("10.1.0.%d:80", 11+3*w.r.IntN(2)), C: client})
	default:
		kind := []string{"syn", "syn", "syn", "ack", "ack", "data", "fin", "rst"}[w.r.IntN(8)]
		w.inject(&Step{Pkt: kind, Dir: "cl", C: client, V: "10.9.0.100:80"})
	}
}

// inject sends a packet, and looks where a new connection of a client went.
func (w *crowd) inject(s *Step) {
	wire, frame, err := w.b.Frame(s)
	if err != nil {
		w.t.Fatal(err)
	}
	inserts := w.d.conns.Stats().Inserts
	before := w.servers()
	w.d.Inject(wire, frame)
	if w.d.conns.Stats().Inserts == inserts {
		return
	}
	w.opened++
	after := w.servers()
	for vs, list := range after {
		for i, rs := range list {
			if was := before[vs][i]; total(rs) > total(was) && rs[2] == 0.0 {
				w.t.Errorf("%s of %s opened a connection to %v, which is quiesced", s.Pkt, s.C, rs)
			}
		}
	}
}

func (w *crowd) servers() map[string][][]any {
	counts, err := w.d.Counts()
	if err != nil {
		w.t.Fatal(err)
	}
	return counts
}

func total(rs []any) float64 { return rs[3].(float64) + rs[4].(float64) }
