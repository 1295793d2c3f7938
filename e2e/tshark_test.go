package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"uvs/lab"
)

// tsharkSums counts a capture's checksums of each kind, as tshark judges them: those of tunnelled packets too. Those of
// frames with IPv6 are tcp6, udp6 and icmpv6, and "too big" of the latter.
type tsharkSums struct {
	good, bad map[string]int
	examples  []string // frames with a bad one: their protocols and what tshark says of them
}

// readSums lets tshark judge frames.
func readSums(t *testing.T, frames []lab.CapturedFrame) tsharkSums {
	t.Helper()
	path := filepath.Join(t.TempDir(), "frames.pcap")
	f, err := os.Create(path)
	must(t, err)
	must(t, lab.WritePcap(f, frames))
	must(t, f.Close())
	kinds := []string{"ip", "tcp", "udp", "icmp", "icmpv6"}
	args := []string{"-n", "-r", path, "-T", "fields", "-E", "separator=/t", "-E", "occurrence=a", "-E", "aggregator=,"}
	for _, kind := range kinds {
		if !strings.HasPrefix(kind, "icmp") { // which it checks in any case
			args = append(args, "-o", kind+".check_checksum:TRUE")
		}
		args = append(args, "-e", kind+".checksum.status")
	}
	args = append(args, "-e", "tcp.checksum.ffff", "-e", "frame.protocols", "-e", "icmpv6.type", "-e", "frame.number", "-e", "_ws.col.Info")
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	sums := tsharkSums{good: map[string]int{}, bad: map[string]int{}}
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimRight(line, "\n"), "\t")
		mangled, protocols, icmp6 := fields[len(kinds)] != "", fields[len(kinds)+1], fields[len(kinds)+2]
		for i, kind := range kinds {
			for depth, status := range strings.Split(fields[i], ",") {
				switch {
				case i == 0 && depth > 0:
					kind = "inner ip"
				case kind == "tcp" && mangled:
					continue // 0xffff for 0, the same number in ones' complement: what Linux's own software checksums have
				case (kind == "tcp" || kind == "udp") && strings.Contains(protocols, ":icmp"):
					continue // a packet that an ICMP error quotes in part is judged as if it were whole
				case (kind == "tcp" || kind == "udp") && strings.Contains(protocols, ":ipv6:"):
					kind += "6"
				case kind == "icmpv6" && icmp6 == "2":
					kind = "too big"
				}
				switch status { // 2: not verified, such as a fragment's; 3: there is none
				case "0":
					sums.bad[kind]++
					sums.examples = append(sums.examples, strings.Join(fields[len(kinds):], " "))
				case "1":
					sums.good[kind]++
				}
			}
		}
	}
	return sums
}
