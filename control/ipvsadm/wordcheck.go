package ipvsadm

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"uvs/control/api"
)

// checkArgs are the arguments of the words behind check.
type checkArgs struct {
	service *api.ServiceKey
	server  *api.ServerKey
	words   []string // that aren't options
	json    bool
}

// parseCheck reads them.
func parseCheck(args []string) (a checkArgs, err error) {
	var six bool
	var server string
	for len(args) > 0 {
		word := args[0]
		option, value, joined := strings.Cut(word, "=")
		args = args[1:]
		switch {
		case !strings.HasPrefix(word, "-"):
			a.words = append(a.words, word)
			continue
		case option == "--json" && !joined:
			a.json = true
			continue
		case (option == "-6" || option == "--ipv6") && !joined:
			six = true
			continue
		}
		if !joined {
			if len(args) == 0 {
				return a, fmt.Errorf("%s: a value is missing", option)
			}
			value, args = args[0], args[1:]
		}
		key, ours, wrong := serviceOption(option, value)
		switch {
		case ours && a.service != nil:
			err = errors.New("one service at a time")
		case ours:
			a.service, err = key, wrong
		case option == "-r" || option == "--real-server":
			server = value
		default:
			err = errors.New("no such option")
		}
		if err != nil {
			return a, fmt.Errorf("%s %s: %w", option, value, err)
		}
	}
	if six {
		if err := withIPv6(a.service); err != nil {
			return a, err
		}
	}
	if a.service != nil {
		if err := a.service.Check(); err != nil {
			return a, err
		}
	}
	if server != "" {
		at, err := serverArg(server)
		switch {
		case err != nil:
			return a, fmt.Errorf("%s is no address of a real server, such as 10.0.0.11 or 10.0.0.11:80", server)
		case a.service == nil:
			return a, errors.New("of which service? -t VIP:PORT, -u, --sctp-service or -f MARK")
		}
		a.server = &api.ServerKey{Address: at.Addr(), Port: cmp.Or(at.Port(), a.service.Port)}
	}
	return a, nil
}

// check is the word check: health checks are added, deleted, listed and tried out, and what follows from them is set.
func (r *run) check(args []string) error {
	if len(args) == 0 {
		return r.complain("check", "add, del, list, test or policy?")
	}
	verb, args := args[0], args[1:]
	a, err := parseCheck(args)
	if err != nil {
		return r.complain("check "+verb, "%v", err)
	}
	if a.service == nil && verb != "list" {
		return r.complain("check "+verb, "which service? -t VIP:PORT, -u, --sctp-service or -f MARK")
	}
	switch verb {
	case "add":
		spec, err := checkSpec(a.words)
		if err != nil {
			return r.complain("check add", "%v", err)
		}
		return r.changeChecks(api.Op{Kind: api.AddCheck, Service: a.service, Server: a.server, CheckSpec: spec})
	case "del":
		if len(a.words) != 1 {
			return r.complain("check del", "which check? its id, as check list shows it")
		}
		return r.changeChecks(api.Op{Kind: api.DeleteCheck, Service: a.service, Server: a.server, CheckID: a.words[0]})
	case "list":
		if len(a.words) > 0 || a.server != nil {
			return r.complain("check list", "it lists all checks, or those of one service")
		}
		return r.listChecks(a.service, a.json)
	case "test":
		return r.testChecks(&a)
	case "policy":
		if a.server != nil {
			return r.complain("check policy", "a policy is a service's, not one server's")
		}
		return r.policy(&a)
	}
	return r.complain("check", "no such word: %s (there are add, del, list, test and policy)", verb)
}

// checkSpec makes a check of a kind and options as words. Values stay text; a name that comes twice is a list.
func checkSpec(words []string) (api.CheckSpec, error) {
	if len(words) == 0 || strings.Contains(words[0], "=") {
		return nil, errors.New("which kind of check? tcp, udp, http ... and then its options as name=value")
	}
	spec := api.CheckSpec{"kind": words[0]}
	for _, w := range words[1:] {
		name, value, ok := strings.Cut(w, "=")
		if !ok || name == "" || name == "kind" {
			return nil, fmt.Errorf("%s: options have the form name=value", w)
		}
		switch had := spec[name].(type) {
		case nil:
			spec[name] = value
		case string:
			spec[name] = []any{had, value}
		case []any:
			spec[name] = append(had, value)
		}
	}
	return spec, nil
}

func (r *run) changeChecks(op api.Op) error {
	if err := op.Check(); err != nil {
		return err
	}
	reply, err := r.Backend.Change(r.ctx, &api.ChangeRequest{Ops: []api.Op{op}, OnError: api.Atomic})
	if err != nil {
		return err
	}
	return reply.Err()
}

// setChecks is an element of what check list --json prints.
type setChecks struct {
	Service api.ServiceKey  `json:"service"`
	Server  *api.ServerKey  `json:"server,omitempty"`
	Checks  []api.CheckSpec `json:"checks,omitempty"`
	Policy  api.PolicySpec  `json:"policy,omitempty"`
}

// listChecks prints what is set.
func (r *run) listChecks(of *api.ServiceKey, asJSON bool) error {
	services, err := r.Backend.Services(r.ctx, of)
	if err != nil {
		return err
	}
	list := []setChecks{}
	for i := range services {
		s := &services[i]
		if len(s.Checks) > 0 || s.Policy != nil {
			list = append(list, setChecks{Service: s.ServiceKey, Checks: s.Checks, Policy: s.Policy})
		}
		for j := range s.Servers {
			if rs := &s.Servers[j]; len(rs.Checks) > 0 {
				list = append(list, setChecks{Service: s.ServiceKey, Server: &rs.ServerKey, Checks: rs.Checks})
			}
		}
	}
	if asJSON {
		return r.json(struct {
			Checks []setChecks `json:"checks"`
		}{list}, nil)
	}
	t := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "Service\tReal server\tID\tCheck\n")
	for _, l := range list {
		server := "all"
		if l.Server != nil {
			server = l.Server.String()
		}
		for _, c := range l.Checks {
			kind, _ := c["kind"].(string)
			fmt.Fprintf(t, "%v\t%s\t%s\t%s%s\n", l.Service, server, c.ID(), kind, optionText(c, "kind", "id"))
		}
		if l.Policy != nil {
			fmt.Fprintf(t, "%v\t\tpolicy\t%s\n", l.Service, strings.TrimSpace(optionText(l.Policy)))
		}
	}
	return t.Flush()
}

// optionText writes options as check add takes them, a blank before each, in alphabetical order but for those left out.
func optionText(options map[string]any, without ...string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if slices.Contains(without, name) {
			continue
		}
		values, many := options[name].([]any)
		if !many {
			values = []any{options[name]}
		}
		for _, v := range values {
			text := fmt.Sprint(v)
			if strings.ContainsFunc(text, func(c rune) bool { return unicode.IsSpace(c) || strings.ContainsRune(`'"\$`+"`", c) }) {
				text = quote(text)
			}
			fmt.Fprintf(&b, " %s=%s", name, text)
		}
	}
	return b.String()
}

// policy prints a service's policy, or changes options of it: one with an empty value becomes the default.
func (r *run) policy(a *checkArgs) error {
	services, err := r.Backend.Services(r.ctx, a.service)
	if err != nil {
		return err
	}
	policy := api.PolicySpec{}
	if len(services) == 1 && services[0].Policy != nil {
		policy = services[0].Policy
	}
	if len(a.words) == 0 {
		if a.json {
			return r.json(policy, nil)
		}
		fmt.Fprintf(r.out, "%v:%s\n", a.service, cmp.Or(optionText(policy), " the default policy"))
		return nil
	}
	for _, w := range a.words {
		name, value, ok := strings.Cut(w, "=")
		switch {
		case !ok || name == "":
			return r.complain("check policy", "%s: options have the form name=value", w)
		case value == "":
			delete(policy, name)
		default:
			policy[name] = value
		}
	}
	return r.changeChecks(api.Op{Kind: api.SetPolicy, Service: a.service, Policy: policy})
}

// testChecks makes checks now and shows what was said.
func (r *run) testChecks(a *checkArgs) error {
	req := &api.CheckTestRequest{Service: *a.service, Server: a.server}
	switch {
	case len(a.words) == 1:
		req.ID = a.words[0] // of one that is set; or else a kind with its defaults
	case len(a.words) > 1:
		spec, err := checkSpec(a.words)
		if err != nil {
			return r.complain("check test", "%v", err)
		}
		req.Spec = spec
	}
	if err := req.Check(); err != nil {
		return r.complain("check test", "%v", err)
	}
	tests, err := r.Backend.TestChecks(r.ctx, req)
	if req.ID != "" && errors.Is(err, api.CheckNotFound) {
		req.ID, req.Spec = "", api.CheckSpec{"kind": req.ID}
		tests, err = r.Backend.TestChecks(r.ctx, req)
	}
	if tests == nil {
		tests = []api.CheckTest{}
	}
	if err != nil || a.json {
		return r.json(api.CheckTestReply{Tests: tests}, err)
	}
	failed := 0
	for i := range tests {
		r.showTest(&tests[i])
		if !tests[i].Outcome.OK {
			failed++
		}
	}
	if failed > 0 {
		return &failure{text: fmt.Sprintf("%d of %s failed", failed, count(uint64(len(tests)), "check")), exit: 1}
	}
	return nil
}

// showTest prints the exchange of a check, every byte of it: what isn't printable, and the ends of lines, as escapes.
func (r *run) showTest(t *api.CheckTest) {
	fmt.Fprintf(r.out, "%v  %s, asked %s%v\n", t.Server, t.ID, choose(t.ThroughVIP, "at the virtual address ", ""), t.Address)
	for _, p := range t.Exchange {
		when := fmt.Sprintf("%.1f ms", p.Milliseconds)
		for line := range strings.Lines(string(p.Data)) {
			fmt.Fprintf(r.out, "%12s %s %s\n", when, choose(p.Sent, ">", "<"), escaped(line))
			when = ""
		}
		if len(p.Data) == 0 {
			fmt.Fprintf(r.out, "%12s %s (nothing)\n", when, choose(p.Sent, ">", "<"))
		}
	}
	fmt.Fprintf(r.out, "%12s %s\n", fmt.Sprintf("%.1f ms", t.Outcome.Milliseconds), verdictOf(&t.Outcome))
}

// verdictOf says what came of a probe.
func verdictOf(o *api.ProbeOutcome) string {
	switch {
	case o.OK:
		return "ok: " + printable(o.Text)
	case o.Unable:
		return "not made: " + printable(o.Text)
	}
	return "failed: " + printable(o.Text)
}

// escaped is a text with Go's escapes for what isn't printable, line ends included.
func escaped(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		c, n := utf8.DecodeRuneInString(s)
		switch {
		case c == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == '\\':
			b.WriteString(`\\`)
		case !unicode.IsPrint(c) && c < 0x80:
			fmt.Fprintf(&b, `\x%02x`, c)
		case !unicode.IsPrint(c):
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// printable is a text of a server's in one line that does nothing to a terminal.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, s)
}
