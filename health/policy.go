package health

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Policy is what follows for a virtual service from the health of its servers. In JSON, in uvs.yaml and on uvsadm's command line
// it is one flat object. DecodePolicy makes one, with the defaults filled in; it isn't changed afterwards.
type Policy struct {
	// Reaction is what becomes of a server that is down: "remove", which is the default, takes it out of the service as
	// uvsadm -d does; "quiesce" gives it the weight 0, so that connections and persistent clients that it has stay with it.
	Reaction string `json:"reaction"`
	// Group joins virtual services whose servers serve together or not at all: while a server can't serve one of them, the
	// servers of its address leave all of the group. A word, such as "shop"; default none.
	Group string `json:"group"`
	// Quorum is the sum of the weights of servers that are up from which on the service is up; default 1.
	Quorum int64 `json:"quorum"`
	// Hysteresis is how far the sum must rise above quorum before a service that is down is up again, and fall below it before
	// one that is up is down; default 0.
	Hysteresis int64 `json:"hysteresis"`
	// Sorry is the server that gets all connections while the service is down: an address with or without a port, "builtin"
	// for uvsd's own page (status 503), or "none", the default: connections are refused.
	Sorry string `json:"sorry"`
	// SorryMethod is how packets are forwarded to the sorry server: "nat", which is the default, "dr" or "tun".
	SorryMethod string `json:"sorrymethod"`
	// SorryPage is the built-in sorry server's page: HTML if it begins with "<", else text; "@FILE" reads it from a file. There
	// is a default.
	SorryPage string `json:"sorrypage"`
	// RetryAfter is what the built-in sorry server tells clients (Retry-After); default 10s, 0s for nothing.
	RetryAfter Duration `json:"retryafter"`
	// SlowStart is how long a server that comes into the service takes from a twentieth of its share of new connections to all
	// of it; default 0s, at once.
	SlowStart Duration `json:"slowstart"`
	// NotifyUp and NotifyDown are programs that are run when a server comes up or goes down, with their arguments: words, or
	// one text that is split at blanks. There is never a shell. %s is the service, %h and %p the server's address and port.
	NotifyUp   Command `json:"notifyup"`
	NotifyDown Command `json:"notifydown"`
	// QuorumUp and QuorumDown are run when the service as a whole comes up or goes down.
	QuorumUp   Command `json:"quorumup"`
	QuorumDown Command `json:"quorumdown"`
	// NotifyTimeout is how long such a program may take before it is killed with all that it started; default 30s.
	NotifyTimeout Duration `json:"notifytimeout"`

	given map[string]json.RawMessage // what was set, for MarshalJSON
}

// Reactions to a server that is down.
const (
	Remove  = "remove"
	Quiesce = "quiesce"
)

// Builtin is the sorry server that is uvsd itself; None is none.
const (
	Builtin = "builtin"
	None    = "none"
)

// SorryMethods are the forwarding methods by their names in SorryMethod.
var SorryMethods = []string{"nat", "dr", "tun"}

const (
	defaultRetryAfter    = 10 * time.Second
	defaultNotifyTimeout = 30 * time.Second
	maxSlowStart         = 24 * time.Hour
	maxPage              = 64 << 10
)

// DefaultPolicy is that of a service that has none.
func DefaultPolicy() *Policy {
	p, err := DecodePolicy([]byte("{}"))
	if err != nil {
		panic("health: " + err.Error())
	}
	return p
}

// DecodePolicy makes a Policy of a JSON object with any of its fields. Like Decode it takes text for every value, and a list of
// one as its element, and refuses what it doesn't know.
func DecodePolicy(data []byte) (*Policy, error) {
	var given map[string]json.RawMessage
	if err := json.Unmarshal(data, &given); err != nil || given == nil {
		return nil, errors.New("a policy is an object")
	}
	p := &Policy{
		Reaction: Remove, Quorum: 1, Sorry: None, SorryMethod: SorryMethods[0], RetryAfter: Duration(defaultRetryAfter),
		NotifyTimeout: Duration(defaultNotifyTimeout), given: given,
	}
	fields := fieldsOf(p)
	for _, name := range slices.Sorted(maps.Keys(given)) {
		f, ok := fields[name]
		if !ok {
			return nil, fmt.Errorf("%s: a policy has no such option%s", name, hint(name, slices.Sorted(maps.Keys(fields))))
		}
		if err := assign(f, given[name]); err != nil {
			return nil, fmt.Errorf("%s=%s: %w", name, shown(given[name]), err)
		}
	}
	return p, p.check()
}

// MarshalJSON gives what was set, without the defaults.
func (p *Policy) MarshalJSON() ([]byte, error) {
	if p.given == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(p.given)
}

func (p *Policy) check() error {
	switch {
	case p.Reaction != Remove && p.Reaction != Quiesce:
		return fmt.Errorf("reaction=%q: it is %s or %s", p.Reaction, Remove, Quiesce)
	case p.Group != "" && (len(p.Group) > maxID || !isWord(p.Group)):
		return fmt.Errorf("group=%q: it is a word of letters, digits, dots, dashes and underlines, at most %d", p.Group, maxID)
	case p.Quorum < 1 || p.Quorum > math.MaxInt32:
		return fmt.Errorf("quorum=%d: it is from 1 to %d", p.Quorum, math.MaxInt32)
	case p.Hysteresis < 0 || p.Hysteresis >= p.Quorum:
		return fmt.Errorf("hysteresis=%d: it is from 0 to less than quorum (%d), or the service would never be down", p.Hysteresis, p.Quorum)
	case !slices.Contains(SorryMethods, p.SorryMethod):
		return fmt.Errorf("sorrymethod=%q: it is one of %s", p.SorryMethod, strings.Join(SorryMethods, ", "))
	case p.RetryAfter < 0 || time.Duration(p.RetryAfter) > maxInterval:
		return fmt.Errorf("retryafter=%v: it is from 0s to %v", p.RetryAfter, Duration(maxInterval))
	case p.SlowStart < 0 || time.Duration(p.SlowStart) > maxSlowStart:
		return fmt.Errorf("slowstart=%v: it is from 0s to %v", p.SlowStart, Duration(maxSlowStart))
	case time.Duration(p.NotifyTimeout) < time.Millisecond || time.Duration(p.NotifyTimeout) > maxInterval:
		return fmt.Errorf("notifytimeout=%v: it is from 1ms to %v", p.NotifyTimeout, Duration(maxInterval))
	case len(p.SorryPage) > maxPage:
		return fmt.Errorf("sorrypage: it has %d bytes, at most %d are sent", len(p.SorryPage), maxPage)
	case strings.HasPrefix(p.SorryPage, "@") && !filepath.IsAbs(p.SorryPage[1:]):
		return fmt.Errorf("sorrypage=%q: the file's name must begin with /", p.SorryPage)
	}
	if p.Sorry != None && p.Sorry != Builtin {
		if _, err := p.SorryServer(0); err != nil {
			return fmt.Errorf("sorry=%q: it is an address, perhaps with a port, %s or %s", p.Sorry, Builtin, None)
		}
	}
	for name, c := range map[string]Command{"notifyup": p.NotifyUp, "notifydown": p.NotifyDown, "quorumup": p.QuorumUp, "quorumdown": p.QuorumDown} {
		if err := c.check(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// SorryServer is the address of a sorry server that isn't built in; port stands for one that wasn't given.
func (p *Policy) SorryServer(port uint16) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.Trim(p.Sorry, "[]")); err == nil {
		return netip.AddrPortFrom(a.Unmap(), port), nil
	}
	a, err := netip.ParseAddrPort(p.Sorry)
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), err
}

// Command is a program and its arguments. None is no program.
type Command []string

// UnmarshalJSON takes a list of words, or one text that is split at blanks.
func (c *Command) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		*c = strings.Fields(text)
		return nil
	}
	var words []string
	if json.Unmarshal(b, &words) != nil {
		return errors.New("it is a program with its arguments: a list, or a text that is split at blanks")
	}
	*c = words
	return nil
}

func (c Command) check() error {
	if len(c) == 0 {
		return nil
	}
	if !filepath.IsAbs(c[0]) {
		return fmt.Errorf("%q: the program's name must begin with /", c[0])
	}
	if slices.ContainsFunc(c, func(s string) bool { return strings.ContainsRune(s, 0) }) {
		return errors.New("a word has a zero byte")
	}
	return nil
}

// Quorum is whether a service is up, by the weights of its servers that are; keepalived's quorum has the same meaning.
type Quorum struct {
	down bool
}

// Up says whether the service is up.
func (q *Quorum) Up() bool { return !q.down }

// Observe takes the sum of the weights of the servers that are up, and says whether that changes the service's state: it goes
// down below Quorum-Hysteresis, and comes up at Quorum+Hysteresis. At first it is up.
func (q *Quorum) Observe(sum int64, p *Policy) (changed bool) {
	threshold := p.Quorum - p.Hysteresis
	if q.down {
		threshold = p.Quorum + p.Hysteresis
	}
	down := sum < threshold
	changed = down != q.down
	q.down = down
	return changed
}
