package doctor

import (
	"fmt"
	"net/netip"

	"uvs/control/api"
	"uvs/service"
)

// The commands are those of docs/arp-problem.md and docs/tunnels.md, which say more.

func arpRemedies(vip netip.Addr) []api.Remedy {
	return []api.Remedy{
		{On: "real server", System: "Linux", Do: []string{
			"sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
			fmt.Sprintf("ip addr replace %v/32 dev lo     # not on the network card, where these settings don't help", vip),
		}},
		{On: "real server", System: "FreeBSD", Do: []string{
			"ifconfig lo1 create",
			fmt.Sprintf("ifconfig lo1 inet %v netmask 255.255.255.255 alias -arp", vip),
		}},
		{On: "real server", System: "Windows", Do: []string{
			fmt.Sprintf(`netsh interface ipv4 delete address "Ethernet" %v`, vip),
			fmt.Sprintf(`netsh interface ipv4 add address "vip" %v 255.255.255.255     # a loopback adapter: docs/arp-problem.md`, vip),
		}},
		{On: "station, if it is no real server", Do: []string{fmt.Sprintf("it must give %v up: ip addr del %v/PREFIX dev INTERFACE", vip, vip)}},
	}
}

func ndpRemedies(vip netip.Addr) []api.Remedy {
	return []api.Remedy{
		{On: "real server", System: "Linux", Do: []string{
			fmt.Sprintf("ip -6 addr del %v/PREFIX dev eth0     # Linux answers for addresses of the interface that is asked, only", vip),
			fmt.Sprintf("ip -6 addr replace %v/128 dev lo", vip),
			"sysctl -w net.ipv6.conf.all.proxy_ndp=0     # and no entry of ip -6 neigh show proxy may name the address",
		}},
		{On: "real server", System: "FreeBSD", Do: []string{
			"ifconfig lo1 create",
			fmt.Sprintf("ifconfig lo1 inet6 %v prefixlen 128 alias", vip),
		}},
		{On: "real server", System: "Windows", Do: []string{
			fmt.Sprintf(`netsh interface ipv6 delete address "Ethernet" %v`, vip),
			fmt.Sprintf(`netsh interface ipv6 add address "vip" %v/128     # a loopback adapter: docs/arp-problem.md`, vip),
		}},
		{On: "station, if it is no real server", Do: []string{fmt.Sprintf("it must give %v up: ip -6 addr del %v/PREFIX dev INTERFACE", vip, vip)}},
	}
}

func listenRemedies(t *target) []api.Remedy {
	port := t.vs.Addr.Port()
	return []api.Remedy{
		{On: "real server", System: "Linux", Do: []string{
			fmt.Sprintf("ss -lntup '( sport = :%d )'     # the program must listen on %v or on all addresses, port %d", port, t.vs.Addr.Addr(), port),
			"nft list ruleset; iptables -S INPUT     # and no firewall may refuse it",
		}},
		{On: "real server", System: "FreeBSD", Do: []string{fmt.Sprintf("sockstat -l -p %d; pfctl -sr; ipfw list", port)}},
		{On: "real server", System: "Windows", Do: []string{fmt.Sprintf(`netstat -ano | findstr ":%d "`, port), "netsh advfirewall show allprofiles"}},
	}
}

// vipRemedies give a server the VIP.
func vipRemedies(t *target) []api.Remedy {
	vip := t.vs.Addr.Addr()
	if t.method == service.Tunnel {
		return tunnelRemedies(vip)
	}
	linux := api.Remedy{On: "real server", System: "Linux", Do: []string{fmt.Sprintf("ip addr replace %v dev lo", netip.PrefixFrom(vip, vip.BitLen()))}}
	freebsd := api.Remedy{On: "real server", System: "FreeBSD", Do: []string{"ifconfig lo1 create", fmt.Sprintf("ifconfig lo1 inet6 %v prefixlen 128 alias", vip)}}
	windows := api.Remedy{On: "real server", System: "Windows", Do: []string{fmt.Sprintf(`netsh interface ipv6 add address "vip" %v/128`, vip)}}
	version := "ipv6"
	if vip.Is4() {
		version = "ipv4"
		linux.Do = append([]string{"sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2     # first: or it answers ARP for it"}, linux.Do...)
		freebsd.Do[1] = fmt.Sprintf("ifconfig lo1 inet %v netmask 255.255.255.255 alias -arp", vip)
		windows.Do[0] = fmt.Sprintf(`netsh interface ipv4 add address "vip" %v 255.255.255.255     # a loopback adapter: docs/arp-problem.md`, vip)
	}
	windows.Do = append(windows.Do,
		fmt.Sprintf(`netsh interface %s set interface "Ethernet" weakhostreceive=enabled`, version),
		fmt.Sprintf(`netsh interface %s set interface "vip" weakhostreceive=enabled weakhostsend=enabled`, version))
	return []api.Remedy{linux, freebsd, windows}
}

// tunnelRemedies make a server the end of a tunnel.
func tunnelRemedies(vip netip.Addr) []api.Remedy {
	if !vip.Is4() {
		return []api.Remedy{{On: "real server", System: "Linux", Do: []string{
			fmt.Sprintf("uvsdecap --director DIRECTOR --vip %v     # or a tunnel of the kernel's: docs/tunnels.md", vip),
		}}}
	}
	return []api.Remedy{
		{On: "real server", System: "Linux", Do: []string{
			"sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
			fmt.Sprintf("modprobe ipip && ip addr replace %v/32 dev tunl0 && ip link set tunl0 up", vip),
			"sysctl -w net.ipv4.conf.tunl0.rp_filter=2     # for GRE and GUE: docs/tunnels.md",
			fmt.Sprintf("uvsdecap --director DIRECTOR --vip %v     # instead, where the kernel has no ipip", vip),
		}},
		{On: "real server", System: "FreeBSD", Do: []string{
			"ifconfig gif0 create tunnel REALSERVER DIRECTOR",
			fmt.Sprintf("ifconfig gif0 inet %v %v netmask 255.255.255.255", vip, vip),
		}},
	}
}
