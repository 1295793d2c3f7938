package ipvsadm

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"uvs/control/api"
)

// shadowArgs are what stands behind shadow and its verb.
type shadowArgs struct {
	service    *api.ServiceKey
	schedulers []string
	json       bool
}

func parseShadow(args []string) (a shadowArgs, err error) {
	six := false
	for len(args) > 0 {
		option, value, joined := strings.Cut(args[0], "=")
		args = args[1:]
		switch {
		case option == "--json" && !joined:
			a.json = true
			continue
		case (option == "-6" || option == "--ipv6") && !joined:
			six = true
			continue
		case !strings.HasPrefix(option, "-"):
			a.schedulers = append(a.schedulers, option)
			continue
		}
		if !joined {
			if len(args) == 0 {
				return a, fmt.Errorf("%s: a value is missing", option)
			}
			value, args = args[0], args[1:]
		}
		key, ours, err := serviceOption(option, value)
		switch {
		case !ours:
			return a, fmt.Errorf("%s: no such option", option)
		case err != nil:
			return a, fmt.Errorf("%s %s: %w", option, value, err)
		case a.service != nil:
			return a, errors.New("one service at a time")
		}
		a.service = key
	}
	if six {
		err = withIPv6(a.service)
	}
	return a, err
}

// shadow is the word shadow: schedulers on trial beside the one that decides.
func (r *run) shadow(args []string) error {
	verb := "report"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		verb, args = args[0], args[1:]
	}
	a, err := parseShadow(args)
	if err != nil {
		return r.complain("shadow "+verb, "%v", err)
	}
	req := &api.ShadowRequest{}
	if a.service != nil {
		req.Service = *a.service
	}
	switch verb {
	case "report":
		if len(a.schedulers) > 0 {
			return r.complain("shadow report", "unexpected argument %s", a.schedulers[0])
		}
		reply, err := r.Backend.Shadows(r.ctx, a.service)
		if err != nil || a.json {
			return r.json(reply, err)
		}
		return r.shadowReport(reply)
	case "add":
		req.Add = a.schedulers
		if len(req.Add) == 0 {
			return r.complain("shadow add", "which schedulers?")
		}
	case "del":
		req.Remove, req.End = a.schedulers, len(a.schedulers) == 0
	default:
		return r.complain("shadow", "no such word: %s (there are add, del and report)", verb)
	}
	if a.service == nil {
		return r.complain("shadow "+verb, "of which service? -t, -u or --sctp-service VIP:PORT, or -f MARK")
	}
	if err := req.Check(); err != nil {
		return r.complain("shadow "+verb, "%v", err)
	}
	reply, err := r.Backend.Shadow(r.ctx, req)
	if err != nil || a.json {
		return r.json(reply, err)
	}
	return nil
}

// shadowReport prints trials, service after service.
func (r *run) shadowReport(reply *api.ShadowsReply) error {
	if len(reply.Shadows) == 0 {
		fmt.Fprintln(r.out, "No scheduler is on trial.")
		return nil
	}
	for i := range reply.Shadows {
		if i > 0 {
			fmt.Fprintln(r.out)
		}
		if err := r.shadowTrials(&reply.Shadows[i]); err != nil {
			return err
		}
	}
	if reply.OneIn > 1 {
		fmt.Fprintf(r.out, "\nThere are so many connections that those of one client in %d are offered.\n", reply.OneIn)
	}
	if reply.Missed > 0 {
		fmt.Fprintf(r.out, "\n%s came too fast to be offered.\n", count(reply.Missed, "connection"))
	}
	return nil
}

func (r *run) shadowTrials(s *api.Shadow) error {
	fmt.Fprintf(r.out, "%v, %s for %v\n", s.Service, s.Scheduler, time.Duration(s.Seconds*float64(time.Second)).Round(time.Second))
	t := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\t\t\t\tnew:\t\t\theld:\t\t\tclients\tby\t\n")
	fmt.Fprint(t, "scheduler\tconns\tdiffers\tno server\tmax/mean\tJain\tCV\tmax/mean\tJain\tCV\tmoved\tchange\t\n")
	for i := range s.Trials {
		x := &s.Trials[i]
		differs := share(x.Differs, x.Offered)
		if x.Real {
			differs = "real"
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%s%s%s\t%s\t\n", x.Scheduler, x.Offered, differs, x.Misses,
			imbalance(&x.New, x.Offered), imbalance(&x.Held, x.Samples), share(x.Moved, x.Returning), share(x.MovedByChange, x.AfterChange))
	}
	if err := t.Flush(); err != nil || len(s.Trials) == 0 {
		return err
	}
	fmt.Fprint(r.out, "\nconnections (most at a time)\n")
	t = tabwriter.NewWriter(r.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "server\tweight\t")
	for i := range s.Trials {
		fmt.Fprintf(t, "%s\t", s.Trials[i].Scheduler)
	}
	fmt.Fprintln(t)
	for _, x := range s.Trials[0].Servers {
		weight := fmt.Sprint(x.Weight)
		if x.Removed {
			weight = "removed"
		}
		fmt.Fprintf(t, "%v\t%s\t", x.Address, weight)
		for i := range s.Trials {
			fmt.Fprintf(t, "%s\t", shadowCell(&s.Trials[i], &x))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// shadowCell is what a trial's server got, where the real one is x.
func shadowCell(t *api.ShadowTrial, x *api.ShadowServer) string {
	for i := range t.Servers {
		if t.Servers[i].Address == x.Address {
			return fmt.Sprintf("%d (%d)", t.Servers[i].Conns, t.Servers[i].Peak)
		}
	}
	return "-"
}

func imbalance(x *api.ShadowImbalance, of uint64) string {
	if of == 0 {
		return "-\t-\t-\t"
	}
	return fmt.Sprintf("%.3f\t%.3f\t%.3f\t", x.MaxMean, x.Jain, x.CV)
}

// share is n of all, in percent.
func share(n, all uint64) string {
	if all == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(n)/float64(all))
}
