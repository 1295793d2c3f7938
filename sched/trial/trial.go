// Package trial puts schedulers on trial: each is offered the same new connections and decides as it would decide on the
// wire, by the code that decides there, over real servers whose counts are its own. What comes of it are figures to
// compare: how evenly the connections are spread, which of them went elsewhere than they really did, which clients met
// another server than before.
//
// uvsd's shadow scheduling feeds it with the connections that are being balanced, uvsbench replay with a recording. It
// opens no socket, starts no goroutine and reads no clock. A Group is one goroutine's at a time.
package trial

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"uvs/sched"
	"uvs/service"
)

// Max is the most trials that a group has, the one of the real choices included.
const Max = 9

// Real is the name of a trial whose choices are made elsewhere: what really happened.
const Real = "real"

// Slot is a real server's number in a group.
type Slot uint16

// NoSlot is the number of no server.
const NoSlot = ^Slot(0)

// Choice is what each trial of a group chose for one connection. Whoever has it tells the group of what becomes of the
// connection.
type Choice [Max]Slot

// NoChoice is the Choice of a connection that no trial knows.
func NoChoice() (c Choice) {
	for i := range c {
		c[i] = NoSlot
	}
	return c
}

// Server is a real server as configuration has it.
type Server struct {
	Addr netip.AddrPort
	// Weight is the share of new connections; 0 is quiesced.
	Weight int32
	// Upper and Lower are the thresholds as in service.RealServer.SetThresholds; 0 is none.
	Upper, Lower uint32
}

// Config is what a Group is made of. The zero value is complete.
type Config struct {
	// Service is the virtual service whose connections they are.
	Service service.Key
	// Sched holds the settings of schedulers.
	Sched sched.Config
	// Clients is how many clients are remembered, to tell which meet another server than before; one that shares its place
	// with another takes it. It is rounded up to a power of two; 0 means 16384, negative none. Each takes 32 bytes.
	Clients int
}

// Group is the trials of one virtual service.
type Group struct {
	cfg     Config
	trials  [Max]*trial
	servers []member // by Slot
	slots   map[netip.AddrPort]Slot
	list    []Slot // of servers that are in the service, the latest added first
	epoch   uint32 // counts changes of list and weights
	opened  uint64 // in this epoch
	clients clients
}

// member is a server that is or was in the service.
type member struct {
	Server
	listed bool
	fair   float64 // connections that it would have got if they went by weight alone
}

// trial is one scheduler with servers of its own.
type trial struct {
	name  string
	sched service.Scheduler // nil: the choices are made elsewhere
	flags service.SchedFlags
	rs    []*service.RealServer // by Slot; Index is the Slot
	list  []*service.RealServer // as the group's
	picks []uint64              // by Slot
	peak  []int32               // by Slot: the most connections at a time
	counts
	held heldSums
}

// counts are what a trial counts.
type counts struct {
	offered, misses, differs            uint64
	returning, moved                    uint64
	returningAfterChange, movedByChange uint64
}

// NewGroup returns a group without servers and trials.
func NewGroup(cfg Config) *Group {
	return &Group{cfg: cfg, slots: map[netip.AddrPort]Slot{}, clients: newClients(cfg.Clients)}
}

// ErrFull says that a group has Max trials, ErrKnown that it has one of that name.
var (
	ErrFull  = fmt.Errorf("no more than %d schedulers at once", Max-1)
	ErrKnown = errors.New("it is there already")
)

// Parse reads SCHEDULER[:flag,...], such as "wlc" or "mh:mh-port,mh-fallback". The error says what is wrong with it.
func Parse(text string) (scheduler string, flags service.SchedFlags, err error) {
	scheduler, list, flagged := strings.Cut(text, ":")
	if scheduler == sched.None || !sched.Known(scheduler) {
		return "", 0, fmt.Errorf("scheduler %q: %w; there are %s", scheduler, service.ErrNoScheduler, strings.Join(sched.Names(), ", "))
	}
	if flagged {
		flags, err = sched.ParseFlags(scheduler, strings.Split(list, ","))
	}
	return scheduler, flags, err
}

// Name is what Parse reads.
func Name(scheduler string, flags service.SchedFlags) string {
	if names := sched.FlagNames(scheduler, flags); len(names) > 0 {
		return scheduler + ":" + strings.Join(names, ",")
	}
	return scheduler
}

// Add begins a trial of a scheduler as Parse reads it. Its servers have no connections and count those alone that are
// offered from now on. The name Real begins one of what really happens: Open is told its choices.
func (g *Group) Add(text string) error {
	t := &trial{name: text}
	if text != Real {
		scheduler, flags, err := Parse(text)
		if err != nil {
			return err
		}
		t.name, t.flags = Name(scheduler, flags), flags
		if t.sched, err = g.cfg.Sched.New(scheduler, flags); err != nil {
			return err
		}
	}
	if g.index(t.name) >= 0 {
		return ErrKnown
	}
	i := slices.Index(g.trials[:], nil)
	if i < 0 || i == Max-1 && text != Real && g.index(Real) < 0 {
		return ErrFull
	}
	for slot := range g.servers {
		t.grow(g.cfg.Service, Slot(slot), &g.servers[slot].Server)
	}
	for _, slot := range g.list {
		t.list = append(t.list, t.rs[slot])
	}
	if t.sched != nil {
		t.sched.Prepare(t.list)
	}
	g.trials[i] = t
	return nil
}

// Remove ends the trial of a name. What it chose is forgotten: call Forget with its place for every Choice that is kept.
func (g *Group) Remove(name string) (place int, ok bool) {
	if scheduler, flags, err := Parse(name); err == nil {
		name = Name(scheduler, flags)
	}
	i := g.index(name)
	if i < 0 {
		return 0, false
	}
	g.trials[i] = nil
	g.clients.forget(i)
	return i, true
}

// Forget takes the choice of a trial that was removed out of c.
func (c *Choice) Forget(place int) { c[place] = NoSlot }

// Names are the trials there are, but for Real.
func (g *Group) Names() (names []string) {
	for _, t := range g.trials {
		if t != nil && t.name != Real {
			names = append(names, t.name)
		}
	}
	return names
}

func (g *Group) index(name string) int {
	return slices.IndexFunc(g.trials[:], func(t *trial) bool { return t != nil && t.name == name })
}

// Slot is the number of a server that is or was in the service, or NoSlot.
func (g *Group) Slot(addr netip.AddrPort) Slot {
	if slot, ok := g.slots[addr]; ok {
		return slot
	}
	return NoSlot
}

// Open offers a new connection to every trial. real is the server that it really goes to, or NoSlot if it was refused.
// The connection counts at each trial's server, as inactive, until Close is called.
func (g *Group) Open(r *service.Request, real Slot) (c Choice) {
	c = NoChoice()
	place, key := g.clients.at(r)
	known := place
	if place.key != key {
		known = nil
	}
	g.opened++
	for i, t := range g.trials {
		if t == nil {
			continue
		}
		slot := real
		if t.sched != nil {
			slot = t.pick(r)
		}
		c[i] = slot
		t.count(slot, real, known, i, g.epoch)
		t.bind(slot)
	}
	place.key, place.slots, place.epoch = key, c, g.epoch
	return c
}

// Follow is Open for a connection that goes where an earlier one went, as under a persistence template. Where that server isn't
// in the service any more, the scheduler decides anew.
func (g *Group) Follow(r *service.Request, real Slot, earlier *Choice) Choice {
	g.opened++
	c := NoChoice()
	for i, t := range g.trials {
		if t == nil {
			continue
		}
		slot := earlier[i]
		switch {
		case t.sched == nil:
			slot = real
		case slot == NoSlot || !g.servers[slot].listed:
			slot = t.pick(r)
		}
		t.offered++
		if slot == NoSlot {
			t.misses++
		}
		if slot != real {
			t.differs++
		}
		c[i] = slot
		t.bind(slot)
	}
	return c
}

// pick asks t's scheduler.
func (t *trial) pick(r *service.Request) Slot {
	if rs := t.sched.Pick(r, t.list); rs != nil {
		return Slot(rs.Index)
	}
	return NoSlot
}

// SetActive says that a connection has become active or inactive, in IPVS's sense.
func (g *Group) SetActive(c *Choice, active bool) {
	for i, t := range g.trials {
		if t != nil && c[i] != NoSlot {
			t.rs[c[i]].SetActive(active)
		}
	}
}

// Close says that a connection is gone.
func (g *Group) Close(c *Choice, active bool) {
	for i, t := range g.trials {
		if t != nil && c[i] != NoSlot {
			t.rs[c[i]].Unbind(active)
		}
	}
}

// TimesSetups says that a trial's scheduler goes by the time that set-ups take.
func (g *Group) TimesSetups() bool {
	return slices.ContainsFunc(g.trials[:], func(t *trial) bool {
		return t != nil && slices.ContainsFunc(t.list, (*service.RealServer).SetupsTimed)
	})
}

// FollowLatency gives each trial's server in a slot what a real server knows of how quickly it answers.
func (g *Group) FollowLatency(slot Slot, rs *service.RealServer) {
	for _, t := range g.trials {
		if t != nil && slot != NoSlot {
			t.rs[slot].FollowLatency(rs)
		}
	}
}

// count counts an offered connection that went to slot.
func (t *trial) count(slot, real Slot, known *client, i int, epoch uint32) {
	t.offered++
	if slot == NoSlot {
		t.misses++
	}
	if slot != real {
		t.differs++
	}
	if known == nil || slot == NoSlot || known.slots[i] == NoSlot {
		return
	}
	t.returning++
	moved := known.slots[i] != slot
	if moved {
		t.moved++
	}
	if known.epoch != epoch {
		t.returningAfterChange++
		if moved {
			t.movedByChange++
		}
	}
}

// bind counts a connection at its server.
func (t *trial) bind(slot Slot) {
	if slot == NoSlot {
		return
	}
	rs := t.rs[slot]
	rs.Bind(false)
	t.picks[slot]++
	t.peak[slot] = max(t.peak[slot], rs.Active()+rs.Inactive())
}

// grow gives t a server for the next slot.
func (t *trial) grow(k service.Key, slot Slot, s *Server) {
	rs := service.NewRealServer(k, s.Addr, service.Route, s.Weight)
	rs.Index = uint32(slot)
	rs.SetThresholds(s.Upper, s.Lower)
	t.rs, t.picks, t.peak = append(t.rs, rs), append(t.picks, 0), append(t.peak, 0)
}
