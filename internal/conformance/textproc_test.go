package conformance

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"uvs/control/api"
)

// uvs has no /proc/net/ip_vs*. Its API says what these files do: the tests write it in their format.

// procAddr writes an address as the files do: IPv4 in hex, IPv6 in brackets without any abbreviation.
func procAddr(a netip.Addr) string {
	if a.Is4() {
		return fmt.Sprintf("%X", a.AsSlice())
	}
	return "[" + a.StringExpanded() + "]"
}

// checkProcServices compares services, their servers in the kernel's order, and all numbers.
func checkProcServices(t *testing.T, file string) {
	m := busyMachine(t, nil)
	services, err := m.control.Services(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	out.WriteString("IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n" +
		"  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n")
	for i := range services {
		s := &services[i]
		if s.FWMark != 0 {
			fmt.Fprintf(&out, "FWM  %08X %s ", s.FWMark, s.Config.Scheduler)
		} else {
			fmt.Fprintf(&out, "%s  %s:%04X %s ", strings.ToUpper(s.Protocol), procAddr(s.Address), s.Port, s.Config.Scheduler)
		}
		if s.Config.OnePacket {
			out.WriteString("ops ")
		}
		if n := s.Config.PersistenceSeconds; n > 0 {
			mask := s.Config.Netmask.Addr(s.Is6())
			text := fmt.Sprintf("%X", mask.AsSlice())
			if s.Is6() { // the prefix length, a number that the file prints with its bytes swapped
				bits := 0
				for _, b := range mask.AsSlice() {
					for ; b != 0; b <<= 1 {
						bits++
					}
				}
				text = fmt.Sprintf("%02X000000", bits)
			}
			fmt.Fprintf(&out, "persistent %d %s\n", n*hz, text)
		} else {
			out.WriteByte('\n')
		}
		for _, r := range s.Servers {
			fmt.Fprintf(&out, "  -> %s:%04X %s %d %d %d\n", procAddr(r.Address), r.Port, methodName(r.Config.Method),
				r.Config.Weight, r.Active, r.Inactive)
		}
	}
	tr := transcripts(t, file)[0]
	if got, want := ordered(spaced(out.String())), ordered(spaced(tr.out)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// hz is how many ticks the recorded kernel's clock makes a second: the file has times in these.
const hz = 100

// spaced makes all blanks in a line one, but for those before a server.
func spaced(s string) string {
	var lines []string
	for l := range strings.Lines(s) {
		text := strings.Join(strings.Fields(l), " ")
		if strings.HasPrefix(l, "  -> ") {
			text = "  " + text
		}
		lines = append(lines, text)
	}
	return strings.Join(lines, "\n") + "\n"
}

// checkProcConnections compares the connections; none of them came from another director.
func checkProcConnections(t *testing.T, file string) {
	tr := transcripts(t, file)[0]
	withOrigin := strings.Contains(file, "sync")
	found := strings.Index(tr.out, "SYN_RECV")
	if found < 0 {
		t.Fatal("no connection in SYN_RECV")
	}
	var left int
	f := strings.Fields(tr.out[found:])
	if withOrigin {
		f = f[1:]
	}
	if _, err := fmt.Sscan(f[1], &left); err != nil {
		t.Fatal(err)
	}
	expiry := time.Duration(left) * time.Second
	m := busyMachine(t, &expiry)
	var out strings.Builder
	out.WriteString(tr.out[:strings.Index(tr.out, "\n")+1])
	err := m.control.Connections(context.Background(), api.ConnectionFilter{}, func(c *api.Connection) error {
		origin := ""
		if withOrigin {
			origin = "LOCAL "
		}
		fmt.Fprintf(&out, "%s %s %04X %s %04X %s %04X %-11s %s%7d\n", strings.ToUpper(c.Protocol), procAddr(c.Client.Addr()), c.Client.Port(),
			procAddr(c.Virtual.Addr()), c.Virtual.Port(), procAddr(c.Server.Addr()), c.Server.Port(), c.State, origin, c.ExpiresSeconds)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := spaced(sortedLines(out.String())), spaced(sortedLines(tr.out)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// checkProcTotals compares what the kernel counted for the director as a whole with the sum of all services. Its rates of the
// whole are none that uvs shows; control's TestRatesAreTheKernels holds how they are estimated.
func checkProcTotals(t *testing.T, file string) {
	services, err := busyMachine(t, nil).control.Services(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var sum api.Stats
	for i := range services {
		s := &services[i].Stats
		sum.Conns, sum.InPackets, sum.OutPackets = sum.Conns+s.Conns, sum.InPackets+s.InPackets, sum.OutPackets+s.OutPackets
		sum.InBytes, sum.OutBytes = sum.InBytes+s.InBytes, sum.OutBytes+s.OutBytes
	}
	want := fmt.Sprintf(" %X %X %X %X %X\n", sum.Conns, sum.InPackets, sum.OutPackets, sum.InBytes, sum.OutBytes)
	if text := " " + strings.ReplaceAll(spaced(transcripts(t, file)[0].out), "\n", "\n "); !strings.Contains(text, want) {
		t.Errorf("counted%swhich is no line of\n%s", want, text)
	}
}

// checkProcHelpers: the recorded kernel had no helper for FTP loaded, and the file nothing but its heading. uvs follows FTP
// wherever it is balanced by NAT, and has no such list.
func checkProcHelpers(t *testing.T, file string) {
	if tr := transcripts(t, file)[0]; strings.Count(tr.out, "\n") != 1 || tr.exit != 0 {
		t.Errorf("%s lists helpers:\n%s", file, tr.out)
	}
}

// unlike are settings whose value is the recorded machine's own.
var unlike = []string{"sync_qlen_max"}

// checkSettings compares the names of all settings and their defaults.
func checkSettings(t *testing.T, file string) {
	settings, err := newTextMachine(t).control.Settings(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range settings {
		if name, ok := strings.CutPrefix(s.Name, "net.ipv4.vs."); ok {
			got[name] = strings.Join(strings.Fields(s.Value), " ")
		}
	}
	for l := range strings.Lines(transcripts(t, file)[0].out) {
		name, value, _ := strings.Cut(strings.TrimSpace(l), ":")
		value = strings.Join(strings.Fields(value), " ")
		if v, ok := got[name]; !ok || v != value && !slices.Contains(unlike, name) {
			t.Errorf("%s is %q, there: %v; want %q", name, v, ok, value)
		}
		delete(got, name)
	}
	for name, value := range got {
		t.Errorf("%s = %s: the kernel has no such setting", name, value)
	}
}
