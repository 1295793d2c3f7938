package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"uvs/lab"
)

// iperfApp is iperf3. Its control connection and its streams have to reach one server, so its service is persistent. It
// doesn't look at the data; its option -F, which keeps them, loses its place after each partial send, with no director too.
var iperfApp = app{
	name:  "iperf3",
	ports: []appPort{{number: 5201, persistent: true}},
	serve: func(t *testing.T, s *station) { s.start(t, nil, "iperf3", "-s", "-p", s.port(5201)) },
	check: func(t *testing.T, c *cell) {
		for _, args := range [][]string{{"-P", "1"}, {"-P", "8"}, {"-P", "1", "-R"}, {"-P", "8", "-R"}} {
			c.iperf(t, append(args, "-n", fmt.Sprint(checkedBytes))...)
		}
	},
	measure: func(t *testing.T, c *cell) {
		for _, streams := range []int{1, 8} {
			up := c.iperf(t, "-t", "1", "-P", fmt.Sprint(streams))
			c.report(fmt.Sprintf("iperf3: to the server, streams: %d", streams), "%.2f Gbit/s", up/1e9)
			down := c.iperf(t, "-t", "1", "-P", fmt.Sprint(streams), "-R")
			c.report(fmt.Sprintf("iperf3: to the client, streams: %d", streams), "%.2f Gbit/s", down/1e9)
		}
	},
}

// iperf runs iperf3 and returns its rate in bits a second.
func (c *cell) iperf(t *testing.T, args ...string) float64 {
	eventually(t, "iperf3's server is done with the test before", func() (bool, any) { // its client doesn't wait for that
		for _, s := range c.stations {
			busy, err := portsOf(s.Host, "01", "08") // established, or left by the client
			must(t, err)
			if busy[c.port(5201)] {
				return false, s.name
			}
		}
		return true, nil
	})
	out := c.run(t, nil, "iperf3", append([]string{"-J", "-c", c.VIP().String()}, args...)...)
	type sum struct {
		Bytes float64
		Rate  float64 `json:"bits_per_second"`
	}
	var result struct {
		Error string
		End   struct {
			Sent     sum `json:"sum_sent"`
			Received sum `json:"sum_received"`
		}
	}
	must(t, json.Unmarshal(out, &result))
	// What is under way at the end is sent and not received; with eight streams that may be most of a short transfer.
	if s, r := result.End.Sent.Bytes, result.End.Received.Bytes; r > s || r < checkedBytes/64 || s < checkedBytes {
		t.Errorf("iperf3 %v: %.0f bytes were sent, %.0f received: %s", args, s, r, result.Error)
	}
	return result.End.Received.Rate
}

// dnsApp is dnsmasq with dig, by UDP and TCP.
var dnsApp = app{
	name:  "dnsmasq",
	ports: []appPort{{number: 53, udp: true}, {number: 53}},
	serve: func(t *testing.T, s *station) {
		s.start(t, nil, "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file=",
			"--port="+s.port(53), "--edns-packet-max=4096", "--txt-record=name.test,"+s.name, "--txt-record=big.test,"+strings.Join(bigTXT(), ","),
			"--address=/a.test/192.0.2.1")
	},
	check: func(t *testing.T, c *cell) {
		for _, by := range []string{"+notcp", "+tcp"} {
			got := lab.Tally{}
			for range 2 * len(c.stations) {
				got[strings.Trim(string(c.dig(t, by, "TXT", "name.test")), "\"\n")]++
			}
			for _, s := range c.stations {
				if got[s.name] != 2 {
					t.Errorf("dig %s: %s answered %d times, want 2: %v", by, s.name, got[s.name], got)
				}
			}
			// By UDP this takes several fragments.
			want := `"` + strings.Join(bigTXT(), `" "`) + "\"\n"
			if got := string(c.dig(t, by, "+bufsize=4096", "+ignore", "TXT", "big.test")); got != want {
				t.Errorf("dig %s: the big record has %d characters, want %d", by, len(got), len(want))
			}
		}
	},
	measure: func(t *testing.T, c *cell) {
		const n = 150
		batch := filepath.Join(sharedDir(t), "batch")
		for _, by := range []string{"UDP", "TCP"} {
			option := map[string]string{"UDP": "+notcp", "TCP": "+tcp"}[by]
			line := fmt.Sprintf("@%v %s +short +time=2 +tries=1 A x.a.test\n", c.VIP(), option)
			must(t, os.WriteFile(batch, []byte(strings.Repeat(line, n)), 0o644))
			start := time.Now()
			out := c.run(t, nil, "dig", "-f", batch)
			if got := strings.Count(string(out), "192.0.2.1\n"); got != n {
				t.Errorf("%d of %d questions by %s were answered", got, n, by)
			}
			c.report("dnsmasq: dig by "+by+", one at a time", "%.0f /s", n/time.Since(start).Seconds())
		}
	},
}

// bigTXT are the strings of a record that no single packet holds.
func bigTXT() []string {
	var parts []string
	for i := range 12 {
		parts = append(parts, fmt.Sprintf("%02d-%s", i, strings.Repeat(string(rune('a'+i)), 247)))
	}
	return parts
}

// dig asks a question, once.
func (c *cell) dig(t *testing.T, args ...string) []byte {
	t.Helper()
	return c.run(t, nil, "dig", append([]string{"@" + c.VIP().String(), "+short", "+time=3", "+tries=1"}, args...)...)
}

// socat is how socat calls a virtual service by TCP.
func (c *cell) socat(port uint16) string {
	if c.six {
		return "TCP6:" + c.at(port)
	}
	return "TCP4:" + c.at(port)
}

// lineApp is a plain server of lines, as telnet clients talk to, by socat.
var lineApp = app{
	name:  "socat",
	ports: []appPort{{number: 23}},
	serve: func(t *testing.T, s *station) {
		s.start(t, nil, "socat", "-b", "65536", "TCP6-LISTEN:"+s.port(23)+",ipv6only=0,fork,reuseaddr,backlog=64", "EXEC:cat")
	},
	check: func(t *testing.T, c *cell) {
		for range len(c.stations) { // each has its turn
			content, err := io.ReadAll(io.LimitReader(lab.Content(1), checkedBytes/4))
			must(t, err)
			echo := c.run(t, content, "socat", "-b", "65536", "-t", "10", "STDIO", c.socat(23))
			if !bytes.Equal(echo, content) {
				t.Errorf("the echo has %d bytes, want the %d that were sent", len(echo), len(content))
			}
		}
	},
	measure: func(t *testing.T, c *cell) {
		const n = 300
		cmd := c.Clients[0].Command(within(t, 15*time.Second), "socat", "STDIO", c.socat(23)+",nodelay")
		in, err := cmd.StdinPipe()
		must(t, err)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		defer cmd.Wait()
		defer in.Close()
		var took []time.Duration
		for i := range n {
			start := time.Now()
			line := fmt.Appendf(nil, "line %d\n", i)
			_, err := in.Write(line)
			must(t, err)
			echo := make([]byte, len(line))
			if _, err := io.ReadFull(out, echo); err != nil || !bytes.Equal(echo, line) {
				t.Fatalf("the echo of %q is %q, %v", line, echo, err)
			}
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		c.report("socat: a line and its echo, median", "%d us", took[n/2].Microseconds())
	},
}
