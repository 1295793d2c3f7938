package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"uvs/internal/conformance"
	"uvs/lab/uml"
)

// step is one step of a sequence, and then with what the kernel made of it, in the words of testdata/golden.
type step map[string]any

// trace is a sequence as it is written to a file: what the kernel did, and the input of a replay.
type trace struct {
	Name    string         `json:"name"`
	Seed    uint64         `json:"seed"`
	Kernel  string         `json:"kernel"`
	Clients string         `json:"clients"` // the sequence's own; other entries are those of earlier sequences on the machine
	Gap     float64        `json:"gap"`
	SetupSh []string       `json:"setup_sh"`
	Setup   []string       `json:"setup"`
	Sysctl  map[string]int `json:"sysctl"`
	Detail  string         `json:"detail"`
	Steps   []step         `json:"steps"`
}

// encode writes a trace with one step a line.
func (t *trace) encode() ([]byte, error) {
	head := *t
	head.Steps = []step{}
	b, err := json.Marshal(head)
	if err != nil {
		return nil, err
	}
	b = append(bytes.TrimSuffix(b, []byte("[]}")), '[')
	for i, s := range t.Steps {
		line, err := json.Marshal(s)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, '\n'), line...)
	}
	return append(b, "\n]}\n"...), nil
}

// recorder runs one sequence on a machine, step by step.
type recorder struct {
	m       *machine
	clients netip.Prefix
	build   *conformance.Builder
	start   time.Time
}

// defaults are the settings that sequences change, as they are at boot.
var defaults = map[string]int{
	"vs.expire_nodest_conn": 0, "vs.expire_quiescent_template": 0, "vs.sloppy_tcp": 0, "vs.conn_reuse_mode": 1, "vs.nat_icmp_send": 0,
	"vs.schedule_icmp": 0, "vs.pmtu_disc": 1,
}

// record clears the machine of what the last sequence left, except its connections, and sets it up for the trace.
func (m *machine) record(t *trace) (*recorder, error) {
	var script strings.Builder
	script.WriteString("set -e; ipvsadm -C; ipvsadm --set 900 120 300; iptables-legacy -t mangle -F PREROUTING; ip6tables-legacy -t mangle -F PREROUTING\n")
	for name, v := range defaults {
		if set, ok := t.Sysctl[name]; ok {
			v = set
		}
		fmt.Fprintf(&script, "echo %d >/proc/sys/net/ipv4/%s\n", v, strings.ReplaceAll(name, ".", "/"))
	}
	for _, line := range t.SetupSh {
		script.WriteString(line + "\n")
	}
	script.WriteString("ipvsadm -R <<.\n" + strings.Join(t.Setup, "\n") + "\n.\n") // one process, not one for each
	if _, err := m.Shell(script.String()); err != nil {
		return nil, err
	}
	if _, err := m.barrier(); err != nil {
		return nil, err
	}
	clients, err := netip.ParsePrefix(t.Clients)
	if err != nil {
		return nil, err
	}
	return &recorder{m: m, clients: clients, build: conformance.NewBuilder(&conformance.Trace{}), start: time.Now()}, nil
}

// run does a step and writes what came of it into the step.
func (r *recorder) run(s step) error {
	s["t"] = float64(time.Since(r.start).Milliseconds()) / 1000
	switch {
	case s["pkt"] != nil:
		return r.packet(s)
	case s["ipvs"] != nil:
		got, err := r.m.Ask(uml.Request{Argv: append([]string{"ipvsadm"}, strings.Fields(s["ipvs"].(string))...)})
		delete(s, "rc")
		delete(s, "err")
		if got.Status != 0 || got.Err != "" {
			s["rc"], s["err"] = got.Status, got.Err
		}
		return err
	case s["sleep"] != nil:
		time.Sleep(time.Duration(s["sleep"].(float64) * float64(time.Second)))
		_, err := r.m.barrier()
		return err
	case s["counts"] != nil:
		text, err := r.m.Read("/proc/net/ip_vs", "")
		if err == nil {
			s["counts"], err = counts(text)
		}
		return err
	case s["conns"] != nil:
		text, err := r.m.Read("/proc/net/ip_vs_conn", procName(r.clients))
		if err == nil {
			s["conns"], err = conns(text, r.clients)
		}
		return err
	}
	return fmt.Errorf("unknown step %v", s)
}

func (r *recorder) packet(s step) error {
	for _, k := range []string{"to", "fwd", "from", "nout", "in", "out"} {
		delete(s, k)
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	var read conformance.Step
	if err := json.Unmarshal(b, &read); err != nil {
		return err
	}
	wire, frame, err := r.build.Frame(&read)
	if err != nil {
		return err
	}
	sent, err := r.m.inject(wire, frame)
	if err != nil {
		return err
	}
	if read.Wait > 0 {
		time.Sleep(time.Duration(read.Wait * float64(time.Second)))
		more, err := r.m.barrier()
		if err != nil {
			return err
		}
		sent = append(sent, more...)
	}
	where := conformance.Briefly(&read, sent)
	s["to"], s["in"] = where.To, hex.EncodeToString(frame)
	if where.Fwd != "" {
		s["fwd"] = where.Fwd
	}
	if where.From != "" {
		s["from"] = where.From
	}
	if where.NOut != 0 {
		s["nout"] = where.NOut
	}
	var out []conformance.Described
	for _, f := range sent {
		d := conformance.Describe(f)
		d["hex"] = hex.EncodeToString(f.Frame)
		out = append(out, d)
	}
	s["out"] = out
	return nil
}

// counts reads /proc/net/ip_vs: the servers of each service in the kernel's order.
func counts(text string) (map[string][][]any, error) {
	all := make(map[string][][]any)
	var service string
	for n, line := range strings.Split(strings.TrimSpace(text), "\n") {
		f := strings.Fields(line)
		if n < 3 || len(f) < 2 {
			continue
		}
		switch f[0] {
		case "FWM":
			mark, err := strconv.ParseUint(f[1], 16, 32)
			if err != nil {
				return nil, err
			}
			service = fmt.Sprintf("FWM %d", mark)
			all[service] = [][]any{}
		case "->":
			a, err := procPair(f[1])
			if err != nil {
				return nil, err
			}
			row := []any{a, f[2]}
			for _, v := range f[3:6] {
				v, err := strconv.Atoi(v)
				if err != nil {
					return nil, err
				}
				row = append(row, v)
			}
			all[service] = append(all[service], row)
		default:
			a, err := procPair(f[1])
			if err != nil {
				return nil, err
			}
			service = f[0] + " " + a
			all[service] = [][]any{}
		}
	}
	return all, nil
}

// conns reads /proc/net/ip_vs_conn: the entries of some clients.
func conns(text string, clients netip.Prefix) ([][]any, error) {
	list := [][]any{}
	for n, line := range strings.Split(strings.TrimSpace(text), "\n") {
		f := strings.Fields(line)
		if n == 0 || len(f) < 9 {
			continue
		}
		row := []any{f[0]}
		for i := 1; i < 7; i += 2 {
			a, err := procAddrPort(f[i], f[i+1])
			if err != nil {
				return nil, err
			}
			row = append(row, a)
		}
		if !clients.Contains(netip.MustParseAddrPort(row[1].(string)).Addr()) {
			continue
		}
		left, err := strconv.Atoi(f[8])
		if err != nil {
			return nil, err
		}
		list = append(list, append(row, f[7], left))
	}
	return list, nil
}
