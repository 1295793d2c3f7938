package ipvsadm

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"uvs/control/api"
)

// drainer is a backend one of whose servers is drained: a connection ends each second.
type drainer struct {
	*kernel
	left    uint64
	asked   []api.DrainRequest
	undrain *api.UndrainRequest
	began   time.Time
}

func (d *drainer) row() []api.Drain {
	row := api.Drain{
		Service: api.ServiceKey{Protocol: api.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80},
		Server:  api.ServerKey{Address: netip.MustParseAddr("10.0.0.11"), Port: 80},
		Weight:  3, State: api.Draining, Active: d.left, ElapsedSeconds: uint32(time.Since(d.began).Seconds()),
	}
	row.Ended = row.Active - d.left
	eta := uint32(d.left)
	row.EmptyInSeconds = &eta
	if len(d.asked) > 0 {
		row.LeftSeconds = d.asked[len(d.asked)-1].WithinSeconds
	}
	return []api.Drain{row}
}

// Drain implements api.Backend.
func (d *drainer) Drain(_ context.Context, r *api.DrainRequest) ([]api.Drain, error) {
	d.asked = append(d.asked, *r)
	return d.row(), nil
}

// Drains implements api.Backend.
func (d *drainer) Drains(context.Context) ([]api.Drain, error) {
	d.left -= min(d.left, 1)
	return d.row(), nil
}

// Undrain implements api.Backend.
func (d *drainer) Undrain(_ context.Context, r *api.UndrainRequest) ([]api.Drain, error) {
	d.undrain = r
	return d.row(), nil
}

func TestDrainTellsWhatIsLeftUntilNothingIs(t *testing.T) {
	signal.Stop(notify()) // starts package signal's goroutine, which must not belong to the bubble
	synctest.Test(t, func(t *testing.T) {
		d := &drainer{kernel: newKernel(), left: 2, began: time.Now()}
		var out, errs bytes.Buffer
		p := Program{Name: "uvsadm", Backend: d, Stdout: &out, Stderr: &errs}
		if exit := p.runWord(t.Context(), strings.Fields("drain 10.0.0.11 --by 5m")); exit != 0 {
			t.Fatalf("exit %d: %s", exit, errs.String())
		}
		want := `10.0.0.11 takes no new connections: 2 connections left, empty in about 2s, the rest is cut in 5m0s
10.0.0.11 takes no new connections: 1 connection left, empty in about 1s, the rest is cut in 5m0s
10.0.0.11 is empty after 2s: 0 connections ended, 0 were cut; uvsadm undrain 10.0.0.11 gives it its weight back
`
		if out.String() != want {
			t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
		}
		if len(d.asked) != 1 || *d.asked[0].WithinSeconds != 300 {
			t.Errorf("asked for %+v", d.asked)
		}
	})
}

func notify() chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt)
	return c
}

func TestDrainArguments(t *testing.T) {
	now := time.Date(2026, 7, 1, 17, 0, 0, 0, time.UTC)
	for line, want := range map[string]string{
		"10.0.0.11":                               `10.0.0.11:0`,
		"10.0.0.11:80 --by 90s":                   `10.0.0.11:80 by 1m30s`,
		"--by=17:30 10.0.0.11":                    `10.0.0.11:0 by 30m0s`,
		"10.0.0.11 --by 16:59":                    `10.0.0.11:0 by 23h59m0s`,
		"[2001:db8::11]:80 -t [2001:db8::100]:80": `[2001:db8::11]:80 of tcp [2001:db8::100]:80`,
		"10.0.0.11 -u 192.0.2.100":                `10.0.0.11:0 of udp 192.0.2.100:0`,
		"10.0.0.11 -f 7 -6 --no-wait --json":      `10.0.0.11:0 of fwmark 7 ipv6 at once json`,
		"10.0.0.11 10.0.0.12":                     "",
		"10.0.0.11 --by":                          "",
		"10.0.0.11 --by soon":                     "",
		"10.0.0.11 --by -5m":                      "",
		"10.0.0.11 -t here":                       "",
		"10.0.0.11 -f 0":                          "",
		"10.0.0.11 -6":                            "",
		"10.0.0.11 --what 1":                      "",
		"rs11":                                    "",
	} {
		a, err := parseDrain(strings.Fields(line), now, true)
		got := a.server.String()
		if a.service != nil {
			got += " of " + a.service.String()
		}
		if a.by != nil {
			got += " by " + a.by.String()
		}
		if a.noWait {
			got += " at once"
		}
		if a.json {
			got += " json"
		}
		if err != nil {
			got = ""
		}
		if got != want {
			t.Errorf("drain %s: %q, %v, want %q", line, got, err, want)
		}
	}
}

func TestDrainsInJSONAndAsATable(t *testing.T) {
	run := func(line string) (string, *drainer) {
		d := &drainer{kernel: newKernel(), left: 5, began: time.Now()}
		var out, errs bytes.Buffer
		p := Program{Name: "uvsadm", Backend: d, Stdout: &out, Stderr: &errs}
		if exit := p.runWord(t.Context(), strings.Fields(line)); exit != 0 {
			t.Errorf("%s: exit %d: %s", line, exit, errs.String())
		}
		return out.String(), d
	}
	for _, line := range []string{"drain --json", "drain 10.0.0.11 --no-wait --json", "undrain 10.0.0.11 --json"} {
		out, _ := run(line)
		var reply api.DrainsReply
		if err := json.Unmarshal([]byte(out), &reply); err != nil || len(reply.Drains) != 1 || reply.Drains[0].Weight != 3 {
			t.Errorf("%s: %v: %s", line, err, out)
		}
	}
	if out, _ := run("drain"); !strings.Contains(out, "10.0.0.11:80  tcp 192.0.2.100:80  draining  3") {
		t.Errorf("drain: %s", out)
	}
	if out, d := run("undrain 10.0.0.11 -t 192.0.2.100:80"); out != "10.0.0.11:80 of tcp 192.0.2.100:80 has weight 3 again\n" || d.undrain.Service.Port != 80 {
		t.Errorf("undrain: %s, asked for %+v", out, d.undrain)
	}
}
