package conformance

import (
	"fmt"
	"testing"
	"time"
)

// TestResponseTimePrefersTheQuickServer sends handshakes through the packet path under every forwarding method. The real
// servers differ in nothing but how long their clients wait before their ACK.
func TestResponseTimePrefersTheQuickServer(t *testing.T) {
	for _, method := range []string{"-g", "-i", "-m"} {
		d, err := NewDirector()
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		for _, line := range []string{
			"-A -t 10.9.0.100:80 -s rt", "-a -t 10.9.0.100:80 -r 10.1.0.11:80 " + method, "-a -t 10.9.0.100:80 -r 10.1.0.12:80 " + method,
		} {
			if _, stderr, status := d.IPVSAdm(line, ""); status != 0 {
				t.Fatalf("ipvsadm %s: %s", line, stderr)
			}
		}
		b := NewBuilder(new(Trace))
		send := func(s *Step) {
			wire, frame, err := b.Frame(s)
			if err != nil {
				t.Fatal(err)
			}
			d.Inject(wire, frame)
		}
		active := func(server int) int { // 0 is 10.1.0.12, the one added last
			counts, err := d.Counts()
			if err != nil {
				t.Fatal(err)
			}
			return int(counts["TCP 10.9.0.100:80"][server][3].(float64))
		}
		for n := range 400 {
			client := fmt.Sprintf("192.0.2.1:%d", 1000+n)
			slow := active(0)
			send(&Step{Pkt: "syn", Dir: "cl", C: client, V: "10.9.0.100:80"})
			if active(0) > slow {
				d.Pass(50 * time.Millisecond)
			} else {
				d.Pass(5 * time.Millisecond)
			}
			send(&Step{Pkt: "ack", Dir: "cl", C: client, V: "10.9.0.100:80"})
		}
		if slow, quick := active(0), active(1); slow+quick != 400 || slow == 0 || slow > 60 {
			t.Errorf("%s: the server ten times as slow has %d connections, the other %d", method, slow, quick)
		}
	}
}
