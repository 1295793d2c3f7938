package ipvsadm

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"uvs/control/api"
)

// healthWord is the word health: how real servers stand, and what their checks heard.
func (r *run) healthWord(args []string) error {
	history := false
	rest := args[:0:0]
	for _, a := range args {
		if a == "--history" {
			history = true
		} else {
			rest = append(rest, a)
		}
	}
	key, asJSON, err := listArgs(rest, true)
	if err != nil {
		return r.complain("health", "%v", err)
	}
	list, err := r.Backend.Health(r.ctx, key)
	if list == nil {
		list = []api.ServerHealth{}
	}
	if err != nil || asJSON {
		return r.json(api.HealthReply{Servers: list}, err)
	}
	if err := r.health(list, history, time.Now()); err != nil {
		return err
	}
	services, err := r.Backend.Services(r.ctx, key)
	if err != nil {
		return err
	}
	return r.quorums(services)
}

// quorums says which services are down as a whole, and who stands in for their servers.
func (r *run) quorums(services []api.Service) error {
	for i := range services {
		q := services[i].Quorum
		if q == nil || q.Up {
			continue
		}
		instead := "no sorry server"
		if s := q.Sorry; s != nil {
			instead = fmt.Sprintf("the sorry server %v has its new connections, and %d of them now", s.ServerKey, s.Active+s.Inactive)
		}
		if _, err := fmt.Fprintf(r.out, "\n%v is down: servers with a weight of %d in all are up; %s\n", services[i].ServiceKey, q.Weight, instead); err != nil {
			return err
		}
	}
	return nil
}

// health prints a line for each check of each server.
func (r *run) health(list []api.ServerHealth, history bool, now time.Time) error {
	t := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "Service\tReal server\tState\tWeight\tCheck\tLast result\tAgo\tChanged\n")
	for i := range list {
		h := &list[i]
		head := fmt.Sprintf("%s\t%s\t%s\t%s", named(h.Service, h.ServiceLabel), named(h.Server, h.ServerLabel), healthState(h), healthWeight(h))
		if len(h.Checks) == 0 {
			fmt.Fprintf(t, "%s\t-\t%s\t-\t-\n", head, choose(h.Serving, "-", printable(h.Why)))
		}
		for j := range h.Checks {
			c := &h.Checks[j]
			result, ago, changed := "none yet", "-", "never"
			if c.Last != nil {
				result, ago = fmt.Sprintf("%s (%.1f ms)", verdictOf(c.Last), c.Last.Milliseconds), since(c.Last.Time, now)
			}
			if c.Suspected != "" {
				result += "; suspect: " + c.Suspected
			}
			if len(c.Changes) > 0 {
				changed = since(c.Changes[0].Time, now)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", head, c.ID, result, ago, changed)
			head = "\t\t\t"
		}
	}
	if err := t.Flush(); err != nil || !history {
		return err
	}
	fmt.Fprint(t, "\nTime\tService\tReal server\tCheck\tBecame\tBecause\n")
	for i := range list {
		for _, c := range list[i].Checks {
			for _, change := range c.Changes {
				fmt.Fprintf(t, "%s\t%v\t%v\t%s\t%s\t%s\n", change.Time.Local().Format("2006-01-02 15:04:05.000"), list[i].Service, list[i].Server,
					c.ID, change.To, printable(change.Why))
			}
		}
	}
	return t.Flush()
}

// healthState is a server's state, and that it doesn't serve though it is up itself.
func healthState(h *api.ServerHealth) string {
	switch {
	case h.Serving && len(h.Checks) == 0:
		return "unchecked"
	case !h.Serving && h.State != api.StateDown:
		return h.State + ", out"
	}
	return h.State
}

// healthWeight is the weight in force, beside the one that was set where that is another, and what makes it so.
func healthWeight(h *api.ServerHealth) string {
	if h.Weight == h.ConfiguredWeight {
		return fmt.Sprint(h.Weight)
	}
	s := fmt.Sprintf("%d of %d", h.Weight, h.ConfiguredWeight)
	var by []string
	for _, f := range h.Factors {
		by = append(by, fmt.Sprintf("%s %.3g", f.By, f.Factor))
	}
	if h.Serving && len(by) > 0 {
		s += " (" + strings.Join(by, ", ") + ")"
	}
	return s
}

// since is how long ago something was, in two units at most.
func since(then, now time.Time) string {
	d := max(now.Sub(then), 0)
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
