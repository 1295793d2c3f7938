package sim

import (
	"fmt"
	"net/netip"
	"slices"

	"uvs/packet"
	"uvs/sched"
	"uvs/service"
)

// director is one director's virtual service: its scheduler, and its list of servers with the counts that it keeps.
type director struct {
	vs        service.VirtualService
	scheduler service.Scheduler
	list      []*service.RealServer // the latest added first
	all       []*service.RealServer // by the server's number
	timed     bool                  // the scheduler wants handshakes to be timed
}

var (
	vip     = netip.MustParseAddrPort("192.0.2.100:80")
	vipAddr = packet.AddrFrom(vip.Addr())
)

// newDirector makes the n-th director of a run.
func newDirector(sc *Scenario, c choice, seed uint64, n int) (*director, error) {
	d := new(director)
	d.vs.Key = service.Key{Proto: service.TCP, Addr: vip}
	for i, x := range sc.list {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}).Next(), 80)
		rs := service.NewRealServer(d.vs.Key, addr, service.Route, *x.Weight)
		rs.SetThresholds(x.Upper, x.Lower)
		rs.SetAvailable(!x.Absent)
		rs.Index = uint32(n*len(sc.list) + i)
		d.all = append(d.all, rs)
		if !x.Absent {
			d.list = slices.Insert(d.list, 0, rs)
		}
	}
	r := newRandom(seed, 100+uint64(n))
	cfg := sched.Config{Seed: r.next() | 1}
	var err error
	if d.scheduler, err = cfg.New(c.name, c.flags); err != nil {
		return nil, fmt.Errorf("scheduler %s: %w", c.text, err)
	}
	d.vs.Scheduler, d.vs.SchedulerName, d.vs.SchedFlags = d.scheduler, c.name, c.flags
	d.publish(nil)
	d.timed = len(d.list) > 0 && d.list[0].SetupsTimed()
	return d, nil
}

// publish is what control does with changes: the scheduler is told of each, prepares for the new list, and weights and list
// come into force together.
func (d *director) publish(changes []service.Change) {
	for _, c := range changes {
		c.Flags = d.vs.SchedFlags
		d.scheduler.Changed(c)
		d.list = c.After
	}
	d.scheduler.Prepare(d.list)
	for _, rs := range d.list {
		rs.CommitWeight()
	}
	d.vs.Servers = d.list
}

// weigh changes a server's weight.
func (d *director) weigh(server int, w int32) {
	rs := d.all[server]
	rs.StageWeight(w)
	if !slices.Contains(d.list, rs) {
		return
	}
	d.publish([]service.Change{{Kind: service.ServerEdited, Server: rs, Before: d.list, After: d.list}})
}

// add adds a server that isn't there.
func (d *director) add(server int, w int32) {
	rs := d.all[server]
	if slices.Contains(d.list, rs) {
		return
	}
	rs.Readmit(w)
	rs.SetAvailable(true)
	d.publish([]service.Change{{Kind: service.ServerAdded, Server: rs, Before: d.list, After: slices.Insert(slices.Clone(d.list), 0, rs)}})
}

// remove takes a server out of the list.
func (d *director) remove(server int) {
	rs := d.all[server]
	i := slices.Index(d.list, rs)
	if i < 0 {
		return
	}
	rs.SetAvailable(false)
	d.publish([]service.Change{{Kind: service.ServerRemoved, Server: rs, Before: d.list, After: slices.Delete(slices.Clone(d.list), i, i+1)}})
}
