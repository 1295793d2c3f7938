package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"uvs/bench/result"
)

// ranked is a subject with its value of the main figure: at the last point of the axis, where there is one.
type ranked struct {
	subject string
	value   result.Value
	row     *result.Row
	// factor is how much worse it is than the best, 1 for the best; far beyond 1 is bad whichever way the figure goes.
	factor float64
}

// rank orders a scenario's subjects by its main figure, the best first. Those of which more than a twentieth of the connections
// failed come last, however quickly they served the others. It is nil if the figure has no direction, or nobody has it.
func rank(f *result.File, s *result.Scenario) []ranked {
	fig := mainFigure(f, s)
	if fig.Better == result.Neither {
		return nil
	}
	var all []ranked
	for _, subject := range s.Subjects() {
		for i := len(s.Rows) - 1; i >= 0; i-- {
			if r := &s.Rows[i]; r.Subject == subject {
				if v, ok := r.Values[fig.Name]; ok && v.N > 0 {
					all = append(all, ranked{subject, v, r, 0})
				}
				break
			}
		}
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		switch fa, fb := failing(f, a.row), failing(f, b.row); {
		case fa != fb && fa:
			return 1
		case fa != fb:
			return -1
		case a.value.Value == b.value.Value:
			return 0
		case (a.value.Value < b.value.Value) == (fig.Better == result.Less):
			return -1
		}
		return 1
	})
	for i := range all {
		best, v := all[0].value.Value, all[i].value.Value
		if fig.Better == result.More {
			best, v = v, best
		}
		if all[i].factor = v / best; v == best { // both may be 0
			all[i].factor = 1
		}
	}
	return all
}

// unanswered is the percentage of connections that got no answer, or found no server; 0 where a result doesn't know it.
func unanswered(f *result.File, r *result.Row) (most float64) {
	for _, name := range []string{"failed", "refused"} {
		if fig, ok := f.Figure(name); ok && fig.Unit == "%" {
			most = max(most, r.Values[name].Value)
		}
	}
	return most
}

// failing says that many connections got no answer.
func failing(f *result.File, r *result.Row) bool { return unanswered(f, r) > 5 }

// apart says that two values' intervals don't meet, or of single runs, which have none, that they differ by more than 2 %.
func apart(a, b result.Value) bool {
	if a.N == 1 || b.N == 1 {
		return math.Abs(a.Value-b.Value) > 0.02*max(math.Abs(a.Value), math.Abs(b.Value))
	}
	return a.Low > b.High || b.Low > a.High
}

// alike is the factor from which on subjects are not called alike, however widely they vary from run to run.
const alike = 1.1

// explain is what to conclude from a scenario's figures, a paragraph each.
func explain(f *result.File, s *result.Scenario) (paragraphs []string) {
	defer func() {
		if s.Verdict != "" {
			paragraphs = append(paragraphs, s.Verdict)
		}
	}()
	all := rank(f, s)
	if len(all) < 2 {
		return nil
	}
	fig := mainFigure(f, s)
	at := ""
	if s.Axis != "" {
		at = fmt.Sprintf(" at %s %s", axisValue(all[0].row.X), s.Axis)
	}
	best := all[0]
	equal := []string{best.subject}
	for _, x := range all[1:] {
		if !failing(f, x.row) && !apart(x.value, best.value) && x.factor < alike {
			equal = append(equal, x.subject)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Ranking by %s%s: ", fig.Title, at)
	switch {
	case len(equal) == len(all):
		fmt.Fprintf(&b, "all are alike as far as these runs can tell, about %s.", quantity(best.value.Value, fig.Unit))
		return append(paragraphs, b.String())
	case len(equal) == 1:
		fmt.Fprintf(&b, "%s is best with %s. ", best.subject, quantity(best.value.Value, fig.Unit))
	default:
		fmt.Fprintf(&b, "%s are best, about %s, and too close to tell apart. ", list(equal), quantity(best.value.Value, fig.Unit))
	}
	var behind []string
	for _, x := range all {
		if failing(f, x.row) || slices.Contains(equal, x.subject) {
			continue
		}
		varies := ""
		if !apart(x.value, best.value) {
			varies = ", but varies widely"
		}
		behind = append(behind, fmt.Sprintf("%s (%s%s)", x.subject, cmp.Or(times(x.factor), quantity(x.value.Value, fig.Unit)), varies))
	}
	if len(behind) > 0 {
		fmt.Fprintf(&b, "Behind: %s. ", strings.Join(behind, ", "))
	}
	var lost []string
	for _, x := range all {
		if failing(f, x.row) {
			lost = append(lost, fmt.Sprintf("%s (%s)", x.subject, quantity(unanswered(f, x.row), "%")))
		}
	}
	if len(lost) > 0 {
		fmt.Fprintf(&b, "Ranked last, because so many connections got no answer: %s. ", strings.Join(lost, ", "))
	}
	return append(paragraphs, strings.TrimSpace(b.String()))
}

// nature is what a kind of scheduler is like, and the document's subjects that are of it.
type nature struct{ Names, Text string }

// naturesOf are the kinds of the schedulers among the document's subjects.
func naturesOf(f *result.File) (all []nature) {
	var order []string
	groups := map[string][]string{}
	for i := range f.Scenarios {
		for _, subject := range f.Scenarios[i].Subjects() {
			n := natureOf(subject)
			if n == "" || slices.Contains(groups[n], subject) {
				continue
			}
			if groups[n] == nil {
				order = append(order, n)
			}
			groups[n] = append(groups[n], subject)
		}
	}
	for _, n := range order {
		all = append(all, nature{list(groups[n]), natures[n]})
	}
	return all
}

// natureOf is the kind that a scheduler is of, by its name without flags; "" of what is none.
func natureOf(subject string) string {
	name, _, _ := strings.Cut(subject, " ")
	return natureNames[name]
}

var natureNames = map[string]string{
	"rr": "turns", "wrr": "weighted turns", "lc": "connections", "wlc": "weighted connections", "sed": "expected delay", "nq": "expected delay",
	"sh": "hash", "mh": "maglev", "dh": "destination hash", "lblc": "locality", "lblcr": "locality", "twos": "two choices", "rt": "response time",
	"fo": "failover", "ovf": "failover",
}

// natures say what a kind of scheduler looks at, and what follows from it.
var natures = map[string]string{
	"turns": "Deals out connections in turn and looks at nothing, so that counts are even to one connection. It is as good as any where " +
		"servers and connections are alike; a slow server gets as many as a quick one, and a long connection counts like a short one.",
	"weighted turns": "Deals out connections in turn by weight. Right weights make it good with unequal servers; it doesn't see that a server is " +
		"busy, so that long connections pile up by chance, and with wrong weights always on the same one.",
	"connections": "Takes the server with the fewest connections, whatever its weight: a quick server frees itself sooner and gets more. " +
		"It needs no knowledge of the servers, but fills slow ones to the same height as quick ones; connections that closed lately count a 256th.",
	"weighted connections": "Takes the server with the fewest connections by weight: what is busy, slow or stuck gets fewer, and the weights bring in " +
		"what is known of the servers. Its weak points are equals, of which the last added goes first, and ends of connections that aren't seen.",
	"expected delay": "Takes the server where the new connection would wait least by weight, counting itself (nq: an idle server first, whatever " +
		"its weight). Closed connections don't count at all. At low load it prefers quick servers, where wlc sees none but empty ones.",
	"hash": "Chooses by a hash of the client's address, so that a client keeps its server; load is as uneven as its clients are. " +
		"One client that asks for much makes its server busy, and nothing moves it away. Whoever hashes to a server that is quiesced is refused, without sh-fallback.",
	"maglev": "Hashes clients like sh, but over a table that a change of the servers moves little in. Load is as uneven as clients are; " +
		"without mh-fallback the clients of a quiesced server are refused.",
	"destination hash": "Chooses by the address that the client asked for: meant for caches behind a mark that has many destinations. " +
		"With one virtual address all goes to one server.",
	"locality": "Keeps a destination address with a server (lblcr: a set of servers) until that has more active connections than its weight while another is half idle: " +
		"meant for caches, where it raises hits. With one virtual address it fills one server first; its weight is the number of connections that it should have.",
	"two choices": "Draws two servers by weight and takes the one with fewer connections by weight: nearly as even as looking at all, and it doesn't " +
		"herd when several directors don't know of each other.",
	"response time": "Draws a server with a chance that falls with the square of its time to accept a connection. It finds slow and dead servers " +
		"without weights being right, but sees the queue of requests only as far as that delays accepting.",
	"failover": "Fills the heaviest server first (fo: alone; ovf: up to its weight in connections): meant for a spare server, not for sharing load.",
}

// times says how much worse something is; nothing if the best is 0.
func times(factor float64) string {
	if math.IsInf(factor, 0) || math.IsNaN(factor) || factor < 0 {
		return ""
	}
	if factor < 2 {
		return fmt.Sprintf("%+.0f %%", 100*(factor-1))
	}
	return digits(factor) + " times"
}

// list is "a, b and c".
func list(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
