package ipvsadm

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"

	"uvs/control/api"
)

// mark is the word mark: rules that give packets their firewall marks.
func (r *run) mark(args []string) error {
	verb := "list"
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	switch verb {
	case "add", "del":
		rule, position, conditions, err := markRule(args)
		if err != nil {
			return r.complain("mark "+verb, "%v", err)
		}
		switch {
		case verb == "add":
			return r.changeMarks(api.Op{Kind: api.AddMarkRule, MarkRule: rule, Position: position})
		case position != 0:
			return r.complain("mark del", "--at is for mark add")
		case !conditions:
			return r.deleteMark(rule.Mark)
		}
		return r.changeMarks(api.Op{Kind: api.DeleteMarkRule, MarkRule: rule})
	case "list":
		rules, err := r.Backend.Marks(r.ctx)
		switch {
		case len(args) == 0 && err == nil:
			return r.listMarks(rules)
		case len(args) == 0 || len(args) == 1 && args[0] == "--json":
			if rules == nil {
				rules = []api.MarkRule{}
			}
			return r.json(api.MarksReply{Rules: rules}, err)
		}
		return r.complain("mark list", "unexpected argument %s", args[0])
	}
	return r.complain("mark", "no such word: %s (there are add, del and list)", verb)
}

// markRule reads a rule. conditions says that there were any, be they no more than "any".
func markRule(args []string) (rule *api.MarkRule, position int, conditions bool, err error) {
	if len(args) == 0 {
		return nil, 0, false, errors.New("a mark is missing")
	}
	mark, err := strconv.ParseUint(args[0], 0, 32)
	if err != nil || mark == 0 {
		return nil, 0, false, fmt.Errorf("%s is no mark: it is a number from 1 to 4294967295", args[0])
	}
	rule = &api.MarkRule{Mark: uint32(mark)}
	given := map[string]bool{}
	for args = args[1:]; len(args) > 0; {
		option, value, joined := strings.Cut(args[0], "=")
		args = args[1:]
		if given[option] {
			return nil, 0, false, fmt.Errorf("%s is there twice", option)
		}
		given[option] = true
		if !joined {
			if len(args) == 0 {
				return nil, 0, false, fmt.Errorf("%s: a value is missing", option)
			}
			value, args = args[0], args[1:]
		}
		if option == "--at" {
			if position, err = strconv.Atoi(value); err != nil || position < 1 {
				return nil, 0, false, fmt.Errorf("--at %s: positions are counted from 1", value)
			}
			continue
		}
		conditions = true
		if err = condition(rule, option, value); err != nil {
			return nil, 0, false, fmt.Errorf("%s %s: %w", option, value, err)
		}
	}
	return rule, position, conditions, nil
}

// condition reads one condition of a rule. "any" is none.
func condition(rule *api.MarkRule, option, value string) (err error) {
	set := value != "any"
	switch option {
	case "--interface":
		if set {
			rule.Interface = value
		}
	case "--src", "--dst":
		var p netip.Prefix
		if set {
			p, err = network(value)
		}
		if option == "--src" {
			rule.Src = p
		} else {
			rule.Dst = p
		}
	case "--proto":
		switch value {
		case api.TCP, api.UDP, api.SCTP:
			rule.Protocol = value
		case "any":
		default:
			err = errors.New("the protocol is tcp, udp or sctp")
		}
	case "--sport", "--dport":
		var ports api.PortRange
		if set {
			ports, err = api.ParsePortRange(strings.Replace(value, ":", "-", 1)) // iptables' way of writing it
		}
		if option == "--sport" {
			rule.SrcPorts = ports
		} else {
			rule.DstPorts = ports
		}
	default:
		err = errors.New("no such condition")
	}
	return err
}

// network reads 10.0.0.0/8, whatever bits lie behind the length, or one host's address.
func network(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, errors.New("neither an address nor a network such as 10.0.0.0/8")
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errors.New("no network such as 10.0.0.0/8")
	}
	return p.Masked(), nil
}

// changeMarks carries out operations, all or none.
func (r *run) changeMarks(ops ...api.Op) error {
	for i := range ops {
		if err := ops[i].Check(); err != nil {
			return err
		}
	}
	reply, err := r.Backend.Change(r.ctx, &api.ChangeRequest{Ops: ops, OnError: api.Atomic})
	if err != nil {
		return err
	}
	return reply.Err()
}

// deleteMark deletes all rules that give a mark.
func (r *run) deleteMark(mark uint32) error {
	rules, err := r.Backend.Marks(r.ctx)
	if err != nil {
		return err
	}
	var ops []api.Op
	for i := range rules {
		if rules[i].Mark == mark {
			ops = append(ops, api.Op{Kind: api.DeleteMarkRule, MarkRule: &rules[i]})
		}
	}
	if len(ops) == 0 {
		return fmt.Errorf("no rule gives mark %d", mark)
	}
	return r.changeMarks(ops...)
}

// listMarks prints rules in the order in which they decide.
func (r *run) listMarks(rules []api.MarkRule) error {
	t := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "Position\tMark\tInterface\tSource\tDestination\tProtocol\tSource ports\tDestination ports\n")
	for i := range rules {
		m := &rules[i]
		fmt.Fprintf(t, "%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", i+1, m.Mark, orAny(m.Interface), networkText(m.Src), networkText(m.Dst),
			orAny(m.Protocol), orAny(m.SrcPorts.String()), orAny(m.DstPorts.String()))
	}
	return t.Flush()
}

func networkText(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return "any"
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

func orAny(s string) string {
	if s == "" {
		return "any"
	}
	return s
}
