package health

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Spec is one check as it is set: its kind, the options of the kind, and how often and how patiently it asks. In JSON, in
// uvs.yaml and on uvsadm's command line it is one flat object: the fields of Settings and those of the kind's Prober beside
// each other. Decode makes one; it isn't changed afterwards.
type Spec struct {
	Settings
	// Options are the kind's, prepared.
	Options Prober

	given map[string]json.RawMessage // what was set, for MarshalJSON
}

// Settings are what every kind of check has. Decode fills in the defaults.
type Settings struct {
	// Kind is the kind of check: tcp, udp, http ...
	Kind string `json:"kind"`
	// ID names the check among those of its service or server; the default is the kind. It is wanted where there are two of
	// one kind.
	ID string `json:"id"`
	// Interval is the time from the beginning of one probe to the beginning of the next; default 2s.
	Interval Duration `json:"interval"`
	// Timeout is how long a probe may take; default half the interval, at most 5s. A server that says nothing is down after
	// fall intervals and one timeout at the latest.
	Timeout Duration `json:"timeout"`
	// Retry is used instead of the interval between probes that disagree with the server's state, while they are being
	// counted against fall and rise; default the interval.
	Retry Duration `json:"retry"`
	// Rise is how many probes in a row must succeed until a server that is down is up again; default 2.
	Rise int `json:"rise"`
	// Fall is how many probes in a row must fail until a server that is up is down; default 2. The first probe of all decides
	// alone.
	Fall int `json:"fall"`
	// Jitter is the part of the interval, in percent, by which it is shortened at random, so that probes which began together
	// don't stay together; from 0 to 50, default 10. It never lengthens it. Unless it is 0, the second probe comes at any time
	// within the interval.
	Jitter int `json:"jitter"`
	// WarmUp is how long after the check was set its first probe comes at the latest: at once while there are few; default
	// the interval, at most 1s.
	WarmUp Duration `json:"warmup"`
	// Start is how the server counts until the first probe has ended: "up", which is the default, or "down".
	Start string `json:"start"`
	// Port is asked instead of the real server's own.
	Port uint16 `json:"port"`
	// Via is the way of the probes: "direct" is to the real server's address; "vip" is to the virtual address by the way that
	// clients' packets take to this server; "auto", the default, is vip with direct routing and tunnels, direct otherwise.
	Via string `json:"via"`
	// InBand has the server asked at once, and in quick succession, when clients' packets make it suspicious: SYNs without an
	// answer, resets, stalls; default yes.
	InBand bool `json:"inband"`
}

// Ways of a probe, and what a server counts as at first.
const (
	Auto   = "auto"
	Direct = "direct"
	VIP    = "vip"

	StartUp   = "up"
	StartDown = "down"
)

// Limits and defaults.
const (
	minInterval     = 10 * time.Millisecond
	maxInterval     = 24 * time.Hour
	defaultInterval = 2 * time.Second
	maxTimeout      = 5 * time.Second // unless set
	maxWarmUp       = time.Second     // unless set
	maxCount        = 1000
	maxJitter       = 50
	defaultJitter   = 10
	maxID           = 64
)

// DirectOnly is a Prober that can't go through the virtual address: its kind isn't TCP or UDP to the service.
type DirectOnly interface {
	Prober
	// DirectOnly does nothing.
	DirectOnly()
}

// PortOfItsOwn is a Prober that asks another program than the service, which has a port of its own.
type PortOfItsOwn interface {
	Prober
	// DefaultPort is the port that is asked unless the setting port is given.
	DefaultPort() uint16
}

// prepare fills in the defaults of settings that weren't given, and checks all.
func (s *Settings) prepare(given map[string]json.RawMessage, options Prober) error {
	set := func(name string) bool { _, ok := given[name]; return ok }
	if !set("id") {
		s.ID = s.Kind
	}
	if p, ok := options.(PortOfItsOwn); ok && !set("port") {
		s.Port = p.DefaultPort()
	}
	if !set("interval") {
		s.Interval = Duration(defaultInterval)
	}
	if !set("timeout") {
		s.Timeout = min(s.Interval/2, Duration(maxTimeout))
	}
	if !set("retry") {
		s.Retry = s.Interval
	}
	if !set("rise") {
		s.Rise = 2
	}
	if !set("fall") {
		s.Fall = 2
	}
	if !set("jitter") {
		s.Jitter = defaultJitter
	}
	if !set("warmup") {
		s.WarmUp = min(s.Interval, Duration(maxWarmUp))
	}
	if !set("start") {
		s.Start = StartUp
	}
	if !set("inband") {
		s.InBand = true
	}
	if !set("via") {
		s.Via = Auto
	}
	return s.check(set, options)
}

func (s *Settings) check(set func(string) bool, options Prober) error {
	for _, d := range []struct {
		name  string
		value Duration
		low   time.Duration
	}{{"interval", s.Interval, minInterval}, {"timeout", s.Timeout, time.Millisecond}, {"retry", s.Retry, minInterval}, {"warmup", s.WarmUp, 0}} {
		if v := time.Duration(d.value); v < d.low || v > maxInterval {
			return fmt.Errorf("%s=%v: it is from %v to %v", d.name, d.value, Duration(d.low), Duration(maxInterval))
		}
	}
	_, direct := options.(DirectOnly)
	switch {
	case s.ID == "" || len(s.ID) > maxID || !isWord(s.ID):
		return fmt.Errorf("id=%q: it is a word of letters, digits, dots, dashes and underlines, at most %d", s.ID, maxID)
	case s.Rise < 1 || s.Rise > maxCount:
		return fmt.Errorf("rise=%d: it is from 1 to %d", s.Rise, maxCount)
	case s.Fall < 1 || s.Fall > maxCount:
		return fmt.Errorf("fall=%d: it is from 1 to %d", s.Fall, maxCount)
	case s.Jitter < 0 || s.Jitter > maxJitter:
		return fmt.Errorf("jitter=%d: it is from 0 to %d percent of the interval", s.Jitter, maxJitter)
	case s.Start != StartUp && s.Start != StartDown:
		return fmt.Errorf("start=%q: it is %s or %s", s.Start, StartUp, StartDown)
	case s.Via != Auto && s.Via != Direct && s.Via != VIP:
		return fmt.Errorf("via=%q: it is %s, %s or %s", s.Via, Auto, Direct, VIP)
	case direct && s.Via == VIP:
		return fmt.Errorf("via=%s: a check of kind %s asks the real server's own address only", s.Via, s.Kind)
	case set("port") && s.Port == 0:
		return errors.New("port=0: it is from 1 to 65535")
	}
	return nil
}

func isWord(s string) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// MarshalJSON gives what was set: the kind, and what else Decode was given, without the defaults.
func (s *Spec) MarshalJSON() ([]byte, error) { return json.Marshal(s.given) }

// Kinds are the names of all kinds of checks, in alphabetical order.
func Kinds() []string { return slices.Sorted(maps.Keys(kinds)) }

// Duration is a time.Duration that is written as "1s" or "500ms"; a number alone is in seconds.
type Duration time.Duration

// String is the shortest text: "1s", "1m30s", "2h".
func (d Duration) String() string {
	switch v := time.Duration(d); {
	case v != 0 && v%time.Hour == 0:
		return fmt.Sprintf("%dh", v/time.Hour)
	case v != 0 && v%time.Minute == 0 && v < time.Hour:
		return fmt.Sprintf("%dm", v/time.Minute)
	default:
		return v.String()
	}
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		if v, err = time.ParseDuration(string(text) + "s"); err != nil {
			return fmt.Errorf("%q is no duration, such as 500ms, 2s or 1m30s", text)
		}
	}
	*d = Duration(v)
	return nil
}
