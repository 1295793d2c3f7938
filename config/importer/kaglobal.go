package importer

import (
	"strings"
	"time"

	"uvs/config"
)

// globals maps global_defs.
func (m *kaMapper) globals(d *directive) {
	d.needless("")
	kept := &directive{place: d.place, name: d.name, isBlock: true}
	for _, in := range d.block {
		if kaGlobalHA(in.name) {
			in.all(Kept, "")
			kept.block = append(kept.block, in)
			continue
		}
		switch {
		case in.name == "lvs_timeouts":
			m.lvsTimeouts(in)
		case in.name == "lvs_sync_daemon", in.name == "lvs_sync_daemon_interface":
			m.syncDaemon(in)
		case in.name == "lvs_flush", strings.HasPrefix(in.name, "lvs_flush_on_stop"):
			in.needless("uvsd begins with what its file says, and takes everything away when it ends")
		case strings.HasPrefix(in.name, "notification_email"), in.name == "smtp_server", in.name == "smtp_connect_timeout", in.name == "smtp_helo_name":
			in.all(Missing, "uvs sends no mail; a program in services.health.notifydown can")
		case in.name == "smtp_alert", in.name == "smtp_alert_checker":
			kaNoMail(in)
		case in.name == "smtp_alert_vrrp":
			in.kept()
			kept.block = append(kept.block, in)
		case in.name == "no_email_faults", in.name == "no_checker_emails":
			in.needless("uvs sends no mail")
		case in.name == "checker_log_all_failures":
			in.needless("uvsadm health shows the last failure, the log each change")
		case in.name == "rs_init_notifies":
			in.missing("uvs's notify programs are told of changes alone")
		case in.name == "script_user":
			in.missing("programs run as uvsd's user")
		case in.name == "enable_script_security":
			in.missing("see to it that none but root can write to the programs that uvsd starts")
		case in.name == "startup_script", in.name == "shutdown_script", in.name == "startup_script_timeout", in.name == "shutdown_script_timeout":
			in.missing("let uvsd's service run it: ExecStartPre= and ExecStopPost= of systemd")
		case strings.Contains(in.name, "snmp"), in.name == "enable_traps":
			in.missing("uvs is no SNMP agent")
		case strings.Contains(in.name, "dbus"):
			in.missing("uvs has no D-Bus; its API is on a socket")
		case strings.HasPrefix(in.name, "nftables_ipvs"):
			in.needless("uvs needs no marks for ranges and groups")
		case in.name == "reload_time_file", in.name == "reload_repeat":
			in.missing("uvsadm reload can be called at any time, by cron for instance")
		case kaProcess(in.name):
			in.all(Needless, "about keepalived's own processes")
		}
	}
	if len(kept.block) > 0 {
		m.ha = append(m.ha, kept)
	}
}

// kaGlobalHA says whether a word of global_defs is about VRRP.
func kaGlobalHA(name string) bool {
	if strings.HasPrefix(name, "vrrp_") || strings.HasPrefix(name, "nftables") && !strings.HasPrefix(name, "nftables_ipvs") ||
		strings.HasPrefix(name, "vmac_") || strings.HasPrefix(name, "fifo_") || strings.HasPrefix(name, "notify_fifo") {
		return true
	}
	switch name {
	case "router_id", "default_interface", "dynamic_interfaces", "disable_local_igmp", "log_unknown_vrids", "lvs_notify_fifo", "lvs_notify_fifo_script",
		"allow_if_changes", "use_symlink_paths":
		return true
	}
	return false
}

// kaProcess says whether a word of global_defs is about keepalived's processes and how it reads its files.
func kaProcess(name string) bool {
	for _, prefix := range []string{"checker_", "bfd_", "process_", "lvs_netlink_", "netlink_", "max_auto_priority", "min_auto_priority", "tmp_config_",
		"config_save_", "umask", "random_seed", "reload_", "include_check", "data_use_", "json_", "log_file", "state_dump", "use_pid_dir", "instance"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// lvsTimeouts maps lvs_timeouts [tcp SECS] [tcpfin SECS] [udp SECS].
func (m *kaMapper) lvsTimeouts(d *directive) {
	t := &m.cfg.Timeouts
	for i := 0; i+1 < len(d.args); i += 2 {
		to, known := map[string]*config.Duration{"tcp": &t.TCP, "tcpfin": &t.TCPFin, "udp": &t.UDP}[d.args[i]]
		if !known {
			d.missing("not understood: " + d.args[i])
			continue
		}
		m.timeout(d, d.args[i+1], to)
	}
	if len(d.args) == 0 || len(d.args)%2 != 0 {
		d.missing("it wants a name and a time, or several")
	}
}

// timeout maps one of IPVS's timeouts, in whole seconds. 0 leaves the default.
func (b *builder) timeout(d *directive, text string, to *config.Duration) {
	n, err := whole(text, 0, 1<<31-1)
	if err != nil {
		d.missing(err.Error())
		return
	}
	if n == 0 {
		d.exact("timeouts")
		return
	}
	cut := false
	if *to, cut = clamp(time.Duration(n)*time.Second, time.Second, maxPersistence); cut {
		d.approx("timeouts: 31 days is the most")
		return
	}
	d.exact("timeouts")
}

// syncDaemon maps lvs_sync_daemon IFACE [[inst] INSTANCE] [id N] [maxlen N] [port N] [ttl N] [group ADDR].
func (m *kaMapper) syncDaemon(d *directive) {
	if len(m.cfg.SyncDaemons) > 0 {
		d.missing("there is already one")
		return
	}
	s := config.SyncDaemon{Interface: d.arg(0)}
	if s.Interface == "" {
		d.missing("it names no interface")
		return
	}
	number := func(text string, low, high int64, to *int) {
		n, err := whole(text, low, high)
		if err != nil {
			d.missing(err.Error())
			return
		}
		*to = n
	}
	for i := 1; i < len(d.args); i++ {
		switch d.args[i] {
		case "inst":
			i++
		case "id":
			i++
			number(d.arg(i), 0, 255, &s.SyncID)
		case "maxlen":
			i++
			number(d.arg(i), 1, 65507, &s.MaxLen)
		case "port":
			i++
			number(d.arg(i), 1, 65535, &s.Port)
		case "ttl":
			i++
			number(d.arg(i), 1, 255, &s.TTL)
		case "group":
			i++
			s.Group = d.arg(i)
		}
	}
	if err := m.syncPair(s); err != nil {
		d.missing(err.Error())
		return
	}
	d.approx("sync: master and backup, whatever VRRP says; this version of uvs keeps them and synchronises no connections")
}

// syncPair adds a master and a backup.
func (b *builder) syncPair(s config.SyncDaemon) error {
	for _, role := range []string{"master", "backup"} {
		s.Role = role
		if err := b.sync(s); err != nil {
			return err
		}
	}
	return nil
}

// sync adds a connection sync daemon.
func (b *builder) sync(s config.SyncDaemon) error {
	if err := accepted(&config.Config{SyncDaemons: []config.SyncDaemon{s}}); err != nil {
		return err
	}
	b.cfg.SyncDaemons = append(b.cfg.SyncDaemons, s)
	return nil
}
