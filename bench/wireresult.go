package bench

import (
	"fmt"
	"slices"
	"strings"

	"uvs/bench/result"
)

// wireFigure is a figure of Wire in the terms of all of uvsbench's results.
type wireFigure struct {
	figure string  // as samples have it
	scale  float64 // to the result's unit
	result.Figure
}

var wireFigures = []wireFigure{
	{Mpps, 1e6, result.Figure{Name: "packets", Title: "packets in a second", Unit: "1/s", Better: result.More}},
	{PerCPUSecond, 1e6, result.Figure{Name: "packets-cpu", Title: "packets for a second of CPU time", Unit: "1/s", Better: result.More, About: "the director's processes and what its kernel does on receipt"}},
	{DirectorNs, 1e-9, result.Figure{Name: "packet-director", Title: "director's CPU time for a packet", Unit: "s", Better: result.Less}},
	{ReceiveNs, 1e-9, result.Figure{Name: "packet-receive", Title: "CPU time of receipt for a packet", Unit: "s", Better: result.Less}},
	{TotalNs, 1e-9, result.Figure{Name: "packet-total", Title: "CPU time for a packet", Unit: "s", Better: result.Less}},
	{Gbps, 1e9, result.Figure{Name: "bits", Title: "bits in a second", Unit: "bit/s", Better: result.More}},
	{DirectorPerGB, 1e-12, result.Figure{Name: "byte-director", Title: "director's CPU time for a byte", Unit: "s", Better: result.Less}},
	{WholePerGB, 1e-12, result.Figure{Name: "byte-whole", Title: "CPU time of all for a byte", Unit: "s", Better: result.Less}},
	{PerSecond, 1, result.Figure{Name: "requests", Title: "requests in a second", Unit: "1/s", Better: result.More}},
	{DirectorPerK, 1e-6, result.Figure{Name: "request-director", Title: "director's CPU time for a request", Unit: "s", Better: result.Less}},
	{WholePerK, 1e-6, result.Figure{Name: "request-whole", Title: "CPU time of all for a request", Unit: "s", Better: result.Less}},
	{RequestErrors, 1, result.Figure{Name: "errors", Title: "errors", Better: result.Less}},
	{P50, 1e-6, result.Figure{Name: "p50", Title: "median latency", Unit: "s", Better: result.Less}},
	{P99, 1e-6, result.Figure{Name: "p99", Title: "99th percentile of the latency", Unit: "s", Better: result.Less}},
	{P999, 1e-6, result.Figure{Name: "p999", Title: "99.9th percentile of the latency", Unit: "s", Better: result.Less}},
	{IdleCPU, 1, result.Figure{Name: "idle", Title: "CPU time while nothing comes", Unit: "%", Better: result.Less}},
	{DirectorBytes, 1, result.Figure{Name: "memory-director", Title: "director's memory for a connection", Unit: "B", Better: result.Less}},
	{KernelBytes, 1, result.Figure{Name: "memory-kernel", Title: "kernel's memory for a connection", Unit: "B", Better: result.Less, About: "that of both ends included"}},
	{Failed, 1, result.Figure{Name: "failed-requests", Title: "failed requests", Better: result.Less}},
	{FailedShare, 1, result.Figure{Name: "failed", Title: "requests that failed", Unit: "%", Better: result.Less}},
	{Longest, 1e-3, result.Figure{Name: "longest", Title: "longest wait for an answer", Unit: "s", Better: result.Less}},
	{HeldLost, 1, result.Figure{Name: "held-lost", Title: "held connections that were lost", Unit: "%", Better: result.Less}},
}

// Result is the report in the form of all of uvsbench's results: a scenario for each work, of each figure the median of all rounds
// with the lowest and the highest.
func (r *Report) Result() *result.File {
	f := &result.File{
		Kind: result.Wire, Title: "Directors beside each other",
		About:   fmt.Sprintf("Each director stood between the same client and server, in %d interleaved rounds of %gs a stretch.", r.Rounds, r.Seconds),
		Machine: r.Machine, Started: r.Started, Took: r.Took, Notes: slices.Clone(r.Left),
	}
	used := map[string]bool{}
	for _, w := range works {
		names := r.subjectsOf(w.name)
		if len(names) == 0 {
			continue
		}
		s := result.Scenario{Name: w.name, Title: strings.ToUpper(w.about[:1]) + w.about[1:]}
		for _, name := range names {
			row := result.Row{Subject: name, Values: map[string]result.Value{}}
			for _, x := range wireFigures {
				if !slices.Contains(w.figures, x.figure) {
					continue
				}
				if x.figure == w.main {
					s.Main = x.Name
				}
				v := Summarise(r.values(w.name, name, x.figure))
				if v.N > 0 {
					used[x.Name] = true
					row.Values[x.Name] = result.Value{Value: v.Median * x.scale, Low: v.Low * x.scale, High: v.High * x.scale, N: v.N, Spread: true}
				}
			}
			if len(row.Values) == 0 {
				row.Error = r.firstError(w.name, name)
			}
			s.Rows = append(s.Rows, row)
		}
		f.Scenarios = append(f.Scenarios, s)
	}
	for _, x := range wireFigures {
		if used[x.Name] {
			f.Figures = append(f.Figures, x.Figure)
		}
	}
	for i := range f.Scenarios {
		if s := &f.Scenarios[i]; !used[s.Main] {
			s.Main = ""
		}
	}
	for _, s := range r.Samples {
		if s.Error != "" {
			f.Notes = append(f.Notes, fmt.Sprintf("round %d: %s at %s failed: %s", s.Round+1, s.Subject, s.Work, s.Error))
		}
	}
	return f
}

// firstError is why a subject has no figure at a work.
func (r *Report) firstError(work, subject string) string {
	for _, s := range r.Samples {
		if s.Work == work && s.Subject == subject && s.Error != "" {
			return s.Error
		}
	}
	return "nothing was measured"
}
