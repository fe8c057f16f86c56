package kubelet

import (
	"net/netip"
	"testing"
)

func take(t *testing.T, from *addresses, wished string) netip.Addr {
	t.Helper()
	address, err := from.take(wished)
	if err != nil {
		t.Fatal(err)
	}
	return address
}

func TestAddressesAreUniqueAndComeBackLate(t *testing.T) {
	from := newAddresses(netip.MustParsePrefix("127.9.0.0/24"))
	first := take(t, from, "")
	if first.String() != "127.9.0.2" {
		t.Fatalf("the first address is %s", first)
	}
	from.release(first)
	if second := take(t, from, ""); second == first {
		t.Fatal("an address came back at once")
	}
	seen := map[netip.Addr]bool{}
	// 254 host addresses, less the marker's and the one that is held.
	for range 252 {
		next := take(t, from, "")
		if seen[next] || !usable(next) || next.String() == "127.9.0.1" {
			t.Fatalf("%s was given twice or is not usable", next)
		}
		seen[next] = true
	}
	if !seen[first] {
		t.Fatal("the released address did not come back at all")
	}
	if extra, err := from.take(""); err == nil {
		t.Fatalf("%s from a range that is used up", extra)
	}
}

func TestAPodKeepsItsAddress(t *testing.T) {
	from := newAddresses(netip.MustParsePrefix("127.9.0.0/16"))
	if kept := take(t, from, "127.9.3.7"); kept.String() != "127.9.3.7" {
		t.Fatalf("got %s", kept)
	}
	for _, wished := range []string{"127.9.3.7", "127.8.0.5", "not an address"} {
		if other := take(t, from, wished); other.String() == wished {
			t.Fatalf("%s was given", other)
		}
	}
}
