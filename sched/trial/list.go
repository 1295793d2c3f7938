package trial

import (
	"fmt"
	"slices"

	"uvs/service"
)

// SetServers makes the servers of the service these, the latest added first, and tells every trial's scheduler of the
// changes one by one, as control does on the wire; an edit that changes nothing is none. The slice is not kept. The error is
// for more servers than a group can number; then nothing has changed.
func (g *Group) SetServers(servers []Server) error {
	if len(servers) > int(NoSlot) {
		return fmt.Errorf("%d real servers, the most are %d", len(servers), NoSlot)
	}
	if slices.EqualFunc(servers, g.list, func(s Server, slot Slot) bool { return s == g.servers[slot].Server }) {
		return nil
	}
	g.endEpoch()
	wanted := make([]Slot, len(servers))
	for i := range servers {
		wanted[i] = g.Slot(servers[i].Addr)
	}
	// What stays where it is: servers come at the head alone, so it is the part that both lists have in common, from the end.
	stays := make([]Slot, 0, len(wanted))
	for i, j := len(g.list)-1, len(wanted)-1; i >= 0 && j >= 0; i-- {
		if g.list[i] == wanted[j] {
			stays = append(stays, wanted[j])
			j--
		}
	}
	slices.Reverse(stays)
	for i := 0; i < len(g.list); {
		if i < len(stays) && g.list[i] == stays[i] {
			i++
		} else {
			g.remove(i)
		}
	}
	for i := len(wanted) - len(stays); i < len(servers); i++ {
		g.edit(wanted[i], &servers[i])
	}
	for i := len(wanted) - len(stays) - 1; i >= 0; i-- {
		g.add(&servers[i])
	}
	for _, t := range g.trials {
		if t == nil {
			continue
		}
		if t.sched != nil {
			t.sched.Prepare(t.list)
		}
		for _, rs := range t.list {
			rs.CommitWeight()
		}
	}
	g.epoch++
	return nil
}

func (g *Group) remove(i int) {
	slot := g.list[i]
	g.list = slices.Delete(g.list, i, i+1)
	g.servers[slot].listed = false
	for _, t := range g.trials {
		if t != nil {
			t.rs[slot].SetAvailable(false)
			before := t.list
			t.list = slices.Concat(before[:i], before[i+1:])
			t.tell(service.ServerRemoved, slot, before)
		}
	}
}

func (g *Group) edit(slot Slot, s *Server) {
	if g.servers[slot].Server == *s {
		return
	}
	g.servers[slot].Server = *s
	for _, t := range g.trials {
		if t != nil {
			t.rs[slot].SetThresholds(s.Upper, s.Lower)
			t.rs[slot].StageWeight(s.Weight)
			t.tell(service.ServerEdited, slot, t.list)
		}
	}
}

func (g *Group) add(s *Server) {
	slot, known := g.slots[s.Addr]
	if !known {
		slot = g.room(s)
	}
	g.servers[slot].Server, g.servers[slot].listed = *s, true
	g.list = slices.Insert(g.list, 0, slot)
	for _, t := range g.trials {
		if t != nil {
			rs := t.rs[slot]
			rs.SetThresholds(s.Upper, s.Lower)
			rs.Readmit(s.Weight)
			rs.SetAvailable(true)
			before := t.list
			t.list = slices.Concat([]*service.RealServer{rs}, before)
			t.tell(service.ServerAdded, slot, before)
		}
	}
}

// room is a slot for a server that the group doesn't know: a new one, or that of one that is gone, if there are many.
func (g *Group) room(s *Server) Slot {
	if len(g.servers) >= 2*len(g.list)+64 || len(g.servers) == int(NoSlot) {
		for i := range g.servers {
			if slot := Slot(i); !g.servers[i].listed && g.unused(slot) {
				delete(g.slots, g.servers[i].Addr)
				g.slots[s.Addr] = slot
				g.servers[i] = member{}
				for _, t := range g.trials {
					if t != nil {
						rs := service.NewRealServer(g.cfg.Service, s.Addr, service.Route, s.Weight)
						rs.Index = uint32(slot)
						t.rs[slot], t.picks[slot], t.peak[slot] = rs, 0, 0
					}
				}
				g.clients.forgetServer(slot)
				return slot
			}
		}
	}
	slot := Slot(len(g.servers))
	g.servers = append(g.servers, member{})
	g.slots[s.Addr] = slot
	for _, t := range g.trials {
		if t != nil {
			t.grow(g.cfg.Service, slot, s)
		}
	}
	return slot
}

// unused says that no trial has a connection on a server.
func (g *Group) unused(slot Slot) bool {
	return !slices.ContainsFunc(g.trials[:], func(t *trial) bool { return t != nil && t.rs[slot].Refs() != 0 })
}

// tell tells t's scheduler of one change.
func (t *trial) tell(kind service.ChangeKind, slot Slot, before []*service.RealServer) {
	if t.sched != nil {
		t.sched.Changed(service.Change{Kind: kind, Server: t.rs[slot], Before: before, After: t.list, Flags: t.flags})
	}
}
