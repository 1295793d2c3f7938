package sim

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"uvs/sched"
	"uvs/service"
)

// Scenario is a situation that schedulers are put into.
type Scenario struct {
	Name  string `yaml:"name"`  // short, for files and options
	Title string `yaml:"title"` // as a heading; default the name
	About string `yaml:"about"` // what it is like and what to look for
	// Verdict is what to conclude, by who wrote the study; reports put it below the ranking.
	Verdict string `yaml:"verdict"`
	Main    string `yaml:"main"` // figure that schedulers are ranked by; default p99

	// Schedulers are compared: names of ipvsadm's, each perhaps followed by blanks and its flags: "mh mh-fallback".
	Schedulers []string `yaml:"schedulers"`
	// Connections is how many are measured in a run, if Time isn't given. Default 100000.
	Connections int `yaml:"connections"`
	// Time is how long a run is measured.
	Time Seconds `yaml:"time"`
	// Warmup is what goes before, unmeasured, as a share of what is measured. Default 0.1.
	Warmup *float64 `yaml:"warmup"`
	// Seeds is the number of runs. Default 10.
	Seeds int `yaml:"seeds"`
	// Window is the length of the stretches whose imbalance is measured. Default the time of 100 connections for each server.
	Window Seconds `yaml:"window"`

	Servers  []Server `yaml:"servers"`  // in the order in which they are added
	Arrivals Arrivals `yaml:"arrivals"` // when connections come
	Work     []Kind   `yaml:"work"`     // what they ask for
	// Clients are where they come from. By default each is a client of its own.
	Clients Population `yaml:"clients"`
	// Destinations are the addresses that they ask for, as of a firewall mark's service. By default there is one.
	Destinations Population `yaml:"destinations"`
	// Cache is what each server remembers.
	Cache    Cache    `yaml:"cache"`
	Director Director `yaml:"director"`
	Changes  []Change `yaml:"changes"` // in mid-run
	Sweep    *Sweep   `yaml:"sweep"`   // a run for each of several values of one thing
	// Published are values from elsewhere to draw beside a sweep's.
	Published []Published `yaml:"published"`

	choices  []choice
	list     []Server // Servers, with those of Count above 1 one by one
	capacity float64  // of those that are there at first: work in a second
	mean     float64  // of the kinds' demand
	trace    *trace
}

// Server is one real server, or several that are alike.
type Server struct {
	Name  string `yaml:"name"`  // default rs1, rs2, ...
	Count int    `yaml:"count"` // default 1
	// Weight is ipvsadm's. Default 1; 0 is quiesced.
	Weight *int32 `yaml:"weight"`
	// Speed is what one of its processors does in a second, in seconds of work. Default 1.
	Speed float64 `yaml:"speed"`
	// Processors is how many connections are served at full speed at once. Default 1.
	Processors float64 `yaml:"processors"`
	// Queue is "ps" (default: those in service share the processors equally) or "fifo" (one after the other).
	Queue string `yaml:"queue"`
	// Workers is how many connections are in service at once at most; the others wait. Default no limit, for fifo as many as
	// processors.
	Workers int `yaml:"workers"`
	// Backlog is how many wait at most; others are refused. Default no limit.
	Backlog int `yaml:"backlog"`
	// Upper and Lower are ipvsadm's thresholds.
	Upper uint32 `yaml:"upper"`
	Lower uint32 `yaml:"lower"`
	// Absent says that it is not there before a change adds it.
	Absent bool `yaml:"absent"`
}

// Arrivals say when connections come. Exactly one of the forms is given.
type Arrivals struct {
	Poisson *Open    `yaml:"poisson"` // independent of each other, at a steady rate
	MMPP    *MMPP    `yaml:"mmpp"`    // the same at a rate that changes at random: bursts
	Diurnal *Diurnal `yaml:"diurnal"` // the same at a rate that swings like day and night
	Closed  *Closed  `yaml:"closed"`  // so many clients, each of which waits for its answer, and thinks
	// Trace is a CSV file with the columns "time" and perhaps "demand", "client", "destination": seconds, seconds, and names.
	Trace string `yaml:"trace"`
}

// Open is a rate: Rate in connections a second, or Load as a share of what all servers can do.
type Open struct {
	Rate float64 `yaml:"rate"`
	Load float64 `yaml:"load"`
}

// MMPP is a Markov-modulated Poisson process: it goes round its states, staying in each for a time with that mean and an
// exponential distribution. Rates of states count relative to each other; Rate or Load is of the whole.
type MMPP struct {
	Open   `yaml:",inline"`
	States []State `yaml:"states"`
}

// State is a state of an MMPP.
type State struct {
	Rate float64 `yaml:"rate"`
	For  Seconds `yaml:"for"`
}

// Diurnal swings as a sine with that Period around Rate or Load, by the share Swing (0 to 1) up and down.
type Diurnal struct {
	Open   `yaml:",inline"`
	Swing  float64 `yaml:"swing"`
	Period Seconds `yaml:"period"`
}

// Closed is a number of clients that each have one connection at a time.
type Closed struct {
	Clients int  `yaml:"clients"`
	Think   Dist `yaml:"think"` // between an answer and the next connection; default none
}

// Kind is a kind of connection.
type Kind struct {
	Name  string  `yaml:"name"`  // default the number
	Share float64 `yaml:"share"` // of connections, relative to the others; default 1
	// Demand is the work, at speed 1.
	Demand Dist `yaml:"demand"`
	// Latency is what the answer takes besides, without occupying the server's processors: disks, networks.
	Latency Dist `yaml:"latency"`
	// Open is how long the connection stays open after the answer, as keep-alive does.
	Open Dist `yaml:"open"`
}

// Population is clients or destinations of unequal popularity.
type Population struct {
	Count int `yaml:"count"`
	// Zipf is the exponent: the i-th most popular has a share in proportion to i^-Zipf. 0, the default, is all alike.
	Zipf float64 `yaml:"zipf"`
}

// Cache is what each server remembers of what it did last: a connection for the same takes less work.
type Cache struct {
	Of      string  `yaml:"of"`      // "destination" or "client"
	Objects int     `yaml:"objects"` // that one server remembers
	Hit     float64 `yaml:"hit"`     // the share of its demand that such a connection costs; default 0.1
}

// Director is what the director, or several, see.
type Director struct {
	// Count is how many there are, each with scheduler and counts of its own. Default 1.
	Count int `yaml:"count"`
	// Spread is how connections come to one of them: "client" (default) by a hash of the client's address and port, as routers
	// do; "turn" one after the other.
	Spread string `yaml:"spread"`
	// Linger is how long a connection counts as inactive after it closed. Default 2m, the kernel's for FIN_WAIT and TIME_WAIT.
	Linger *Seconds `yaml:"linger"`
	// Established is how long a connection counts as active whose end the director doesn't see. Default 15m, the kernel's.
	Established Seconds `yaml:"established"`
	// LateShare of connections are seen to close only LateBy after they did; MissingShare never.
	LateShare    float64 `yaml:"late_share"`
	LateBy       Seconds `yaml:"late_by"`
	MissingShare float64 `yaml:"missing_share"`
	// Detect is how long after a server failed or returned the director's health checks say so. Default 3s. Then its weight
	// becomes 0, or with DetectRemoves it is removed; and as it was.
	Detect        *Seconds `yaml:"detect"`
	DetectRemoves bool     `yaml:"detect_removes"`
	// GiveUp is how long clients wait for a server that is dead. Default 5s.
	GiveUp Seconds `yaml:"give_up"`
	// RoundTrip is the time from a client through the director to a server and back. Default 1ms. Accept is the work of
	// accepting a connection, for which it queues like any other work. Default 50µs. Both matter to the scheduler rt alone.
	RoundTrip Seconds `yaml:"round_trip"`
	Accept    Seconds `yaml:"accept"`
}

// Change happens at a time after the measurement began. One of the actions is given.
type Change struct {
	At Seconds `yaml:"at"`
	// Fail: the server dies; what it was serving is lost, and it answers nothing until it returns.
	Fail string `yaml:"fail"`
	// Return: it is back, with an empty cache.
	Return string `yaml:"return"`
	// Slow: its processors have the speed Speed from now on.
	Slow  string  `yaml:"slow"`
	Speed float64 `yaml:"speed"`
	// Add: a server that is Absent, or was removed, is added. Remove: it is removed; its connections go on.
	Add    string `yaml:"add"`
	Remove string `yaml:"remove"`
	// Weigh: its weight becomes Weight.
	Weigh  string `yaml:"weigh"`
	Weight int32  `yaml:"weight"`

	server int
	action action
}

// Sweep runs the scenario for each of Values of Over: "clients" (of a closed population), "load", "rate", "directors", "late"
// (late_share), "missing" (missing_share).
type Sweep struct {
	Over   string    `yaml:"over"`
	Values []float64 `yaml:"values"`
	LogX   bool      `yaml:"log_x"`
	LogY   bool      `yaml:"log_y"`
}

// Published is a series of values of a sweep's main figure that somebody measured.
type Published struct {
	Name string    `yaml:"name"`
	X    []float64 `yaml:"x"`
	Y    []float64 `yaml:"y"`
}

// choice is a scheduler with its flags.
type choice struct {
	text, name string
	flags      service.SchedFlags
}

func parseChoice(text string) (choice, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return choice{}, errors.New("a scheduler without a name")
	}
	c := choice{text: strings.Join(words, " "), name: words[0]}
	if !sched.Known(c.name) || c.name == sched.None {
		return choice{}, fmt.Errorf("no scheduler %q; there are %s", c.name, strings.Join(sched.Names(), " "))
	}
	var err error
	c.flags, err = sched.ParseFlags(c.name, words[1:])
	return c, err
}

// unlimited is more than ever come.
const unlimited = math.MaxInt32

// words are the names of the choice's flags.
func (c *choice) words() []string { return strings.Fields(c.text)[1:] }

// Size is the number of the scenario's servers.
func (s *Scenario) Size() int { return len(s.list) }
