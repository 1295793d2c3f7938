package conformance

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"uvs/packet"
)

// Difference is one outcome in which uvs and the trace are not the same.
type Difference struct {
	Step      int
	Field     string // of the step
	Got, Want string // uvs's, and what was recorded
}

// enough differences end a replay: the later ones follow from the first.
const enough = 8

// Replay runs a trace and returns where uvs differs from what was recorded. Differences for which allowed, if given, returns
// true are left out.
func Replay(tr *Trace, allowed func(step int, field string) bool) (list []Difference, err error) {
	d, err := NewDirector()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	for name, v := range tr.Sysctl {
		if err := d.Sysctl(name, v); err != nil {
			return nil, err
		}
	}
	for _, line := range tr.SetupSh {
		if err := d.Shell(line); err != nil {
			return nil, fmt.Errorf("setup %q: %w", line, err)
		}
	}
	for _, line := range tr.Setup {
		if out, errs, status := d.IPVSAdm(line, ""); status != 0 {
			return nil, fmt.Errorf("setup ipvsadm %s: status %d\n%s%s", line, status, out, errs)
		}
	}
	r := &run{d: d, trace: tr, allowed: allowed, build: NewBuilder(tr)}
	for i := range tr.Steps {
		if err := r.step(i, &tr.Steps[i]); err != nil {
			return nil, fmt.Errorf("step %d: %w", i, err)
		}
		if len(r.differences) > enough {
			break
		}
	}
	return r.differences, nil
}

// run is a replay under way.
type run struct {
	d           *Director
	trace       *Trace
	allowed     func(step int, field string) bool
	build       *Builder
	at          float64 // seconds since the first step
	differences []Difference
}

// differs reports a difference, unless it is allowed.
func (r *run) differs(i int, field string, got, want any) {
	if r.allowed != nil && r.allowed(i, field) {
		return
	}
	r.differences = append(r.differences, Difference{i, field, fmt.Sprint(got), fmt.Sprint(want)})
}

func (r *run) step(i int, s *Step) error {
	if s.T != nil && *s.T > r.at {
		r.pass(*s.T - r.at)
	}
	switch {
	case s.Pkt != "":
		return r.packet(i, s)
	case s.IPVS != nil:
		out, errs, status := r.d.IPVSAdm(*s.IPVS, s.Stdin)
		if status != s.RC {
			r.differs(i, "rc", fmt.Sprintf("%d %s", status, errs), s.RC)
		}
		if s.Err != "" && errs != s.Err {
			r.differs(i, "err", errs, s.Err)
		}
		if len(s.Text) > 0 {
			r.text(i, out, s.Text)
		}
	case s.Show != nil:
		out, errs, _ := r.d.IPVSAdm(*s.Show, "")
		r.show(i, s, out+errs)
	case s.Sh != nil:
		if err := r.d.Shell(*s.Sh); err != nil {
			r.differs(i, "sh", err, nil)
		}
	case s.Sleep > 0:
		r.pass(s.Sleep)
	case s.has("counts"):
		return r.counts(i, s)
	case s.has("conns"):
		return r.conns(i, s)
	}
	return nil
}

func (r *run) pass(seconds float64) {
	r.at += seconds
	r.d.Pass(time.Duration(seconds * float64(time.Second)))
}

func (r *run) packet(i int, s *Step) error {
	wire, frame, err := r.build.Frame(s)
	if err != nil {
		return err
	}
	if s.In != "" && s.In != hex.EncodeToString(frame) {
		return fmt.Errorf("built %x, recorded %s: the replay itself is wrong", frame, s.In)
	}
	out := r.d.Inject(wire, frame)
	gap := r.trace.Gap
	if gap == 0 {
		gap = 0.002
	}
	r.pass(gap)
	if s.Wait > 0 {
		r.pass(s.Wait)
	}
	if got, want := Briefly(s, out), (Brief{s.To, s.Fwd, s.From, s.NOut}); got != want {
		r.differs(i, "to", got, want)
	} else if len(s.Out) > 0 {
		r.frames(i, s, out)
	}
	if s.has("conn1") {
		if err := r.conn1(i, s); err != nil {
			return err
		}
	}
	if s.has("conns") {
		return r.conns(i, s)
	}
	return nil
}

// frames compares what was sent field by field, and byte by byte where the bytes were recorded.
func (r *run) frames(i int, s *Step, out []Sent) {
	made := false // of a packet's fragments only the first may show it
	for k, want := range s.Out {
		got := Described(jsonRound(Describe(out[k])))
		wantHex, _ := want["hex"].(string)
		made = made || isMade(got)
		encapsulated := got["dport"] == float64(guePort)
		for _, m := range []Described{got, want} {
			delete(m, "hex")
			if made {
				delete(m, "id")
				delete(m, "flow")
			}
			if encapsulated {
				delete(m, "sport")
			}
			delete(m, "eth")
		}
		if a, b := jsonText(got), jsonText(want); a != b {
			r.differs(i, "out", a, b)
			continue
		}
		if wantHex == "" {
			continue
		}
		gotHex := hex.EncodeToString(out[k].Frame)
		if made {
			gotHex, wantHex = reproducible(gotHex), reproducible(wantHex)
		}
		if gotHex != wantHex {
			r.differs(i, "hex", gotHex, wantHex)
		}
	}
}

// ipv6Fragment is the protocol number of IPv6's fragment header.
const ipv6Fragment = 44

// guePort is where the recorded servers take GUE.
const guePort = 6080

// reproducible is a frame of the director's own making, in hex, without what it draws by chance: identifications, the flow
// label of IPv6, GUE's UDP source port, and the checksums over these.
func reproducible(frame string) string {
	f, err := hex.DecodeString(frame)
	if err != nil || len(f) < packet.EthLen+packet.IPv4Len {
		return frame
	}
	b := f[packet.EthLen:]
	var proto uint8
	var l4 []byte
	switch b[0] >> 4 {
	case 4:
		clear(b[4:6])
		clear(b[10:12])
		ip := (*packet.IPv4)(b)
		if ip.FragOffset() == 0 {
			proto, l4 = ip.Proto(), b[packet.IPv4Len:]
		}
	case 6:
		b[1] &= 0xf0
		clear(b[2:4])
		if len(b) > packet.IPv6Len {
			proto, l4 = b[6], b[packet.IPv6Len:]
		}
		if proto == ipv6Fragment && len(l4) >= packet.FragmentLen {
			clear(l4[4:8])
		}
	}
	if proto == packet.ProtoUDP && len(l4) >= packet.UDPLen && (*packet.UDP)(l4).DstPort() == guePort {
		clear(l4[:2])
		if (*packet.UDP)(l4).Checksum() != 0 {
			packet.SetWord(l4[6:], 0xffff)
		}
	}
	return hex.EncodeToString(f)
}

// isMade says that the director made the packet itself, so that its IP identification is its own: answers, tunnels' outer
// headers, and IPv6's fragments, which the kernel gathers and then makes anew, while uvs sends on what came. Linux gives its
// ICMP errors the precedence of internetwork control, and the rest of the type of service they answer.
func isMade(d Described) bool {
	fl, _ := d["fl"].(string)
	icmp, _ := d["icmp"].(string)
	icmp6, _ := d["icmp6"].(string)
	tos, _ := d["tos"].(float64)
	return d["frag"] != nil || strings.HasPrefix(fl, "R") && d["if"] == "cli" || d["proto"] == float64(packet.ProtoIPIP) ||
		d["proto"] == float64(packet.ProtoIPv6) || d["proto"] == float64(packet.ProtoGRE) ||
		d["if"] == "rs" && d["dport"] == float64(guePort) || icmp6 != "" && d["hlim"] == float64(64) ||
		icmp != "" && int(tos)&^0x1e == 0xc0 || icmp == "0/0"
}

func jsonRound(v any) map[string]any {
	b, _ := json.Marshal(v)
	var m map[string]any
	_ = json.Unmarshal(b, &m)
	return m
}

func jsonText(v any) string { b, _ := json.Marshal(v); return string(b) }

func (r *run) conn1(i int, s *Step) error {
	all, err := r.d.Conns()
	if err != nil {
		return err
	}
	var got [][]any
	for _, c := range all {
		if c[1] == s.C && (s.V == "" || c[2] == s.V) {
			got = append(got, []any{c[4], c[5], c[3]})
		}
	}
	compareEntries(r, i, "conn1", got, slices.Clone(s.Conn1), 1)
	return nil
}

func (r *run) conns(i int, s *Step) error {
	got, err := r.d.Conns()
	if err != nil {
		return err
	}
	want := make([][]any, 0, len(s.Conns))
	for _, c := range s.Conns {
		want = append(want, c[:6:6])
	}
	compareEntries(r, i, "conns", got, want, 5)
	return nil
}

// compareEntries compares entries in any order; the seconds to live, in column seconds, may differ by two, and an entry with no
// more than two left may be there or not.
func compareEntries(r *run, i int, field string, got, want [][]any, seconds int) {
	key := func(c []any) string {
		k := slices.Clone(c)
		k[seconds] = nil
		return jsonText(k)
	}
	left := make(map[string][]float64)
	for _, c := range want {
		left[key(c)] = append(left[key(c)], c[seconds].(float64))
	}
	for _, c := range got {
		k, a := key(c), c[seconds].(float64)
		same := slices.IndexFunc(left[k], func(b float64) bool { return a-b <= 2 && b-a <= 2 })
		if same < 0 {
			if a > 2 {
				r.differs(i, field, jsonText(c), jsonText(want))
				return
			}
			continue
		}
		left[k] = slices.Delete(left[k], same, same+1)
	}
	for k, times := range left {
		for _, b := range times {
			if b > 2 {
				r.differs(i, field, jsonText(got), k)
				return
			}
		}
	}
}

func (r *run) counts(i int, s *Step) error {
	got, err := r.d.Counts()
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(got, s.Counts) && jsonText(got) != jsonText(s.Counts) {
		r.differs(i, "counts", jsonText(got), jsonText(s.Counts))
	}
	return nil
}

func (r *run) show(i int, s *Step, out string) {
	got, want := timeless(out), timeless(strings.Join(s.Text, "\n"))
	if first := strings.Fields(*s.Show)[0]; strings.HasPrefix(first, "-L") && strings.Contains(first, "c") {
		for _, lines := range [][]string{got, want} {
			if len(lines) > 2 {
				slices.Sort(lines[2:])
			}
		}
	}
	if a, b := strings.Join(got, "\n"), strings.Join(want, "\n"); a != b {
		r.differs(i, "text", "\n"+a, "\n"+b)
	}
}

var timeText = regexp.MustCompile(`\b\d\d:\d\d\b|expires \d+sec`)

// timeless cuts a listing into lines without the times in it.
func timeless(text string) []string {
	return strings.Split(timeText.ReplaceAllString(strings.TrimSuffix(text, "\n"), ""), "\n")
}

func (r *run) text(i int, got string, want []string) {
	a, b := strings.Join(timeless(got), "\n"), strings.Join(timeless(strings.Join(want, "\n")), "\n")
	if a != b {
		r.differs(i, "text", "\n"+a, "\n"+b)
	}
}
