package supervise

import "testing"

func TestRangesAreTakenOnce(t *testing.T) {
	first, err := claim("", "")
	if err != nil {
		t.Fatal(err)
	}
	defer first.marker.Close()
	if _, err := claim(first.prefix.String(), ""); err == nil {
		t.Fatal("a range was taken twice")
	}
	second, err := claim("", first.prefix.String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.marker.Close()
	if second.prefix == first.prefix {
		t.Fatal("a range was taken twice")
	}
	second.marker.Close()
	again, err := claim("", second.prefix.String())
	if err != nil || again.prefix != second.prefix {
		t.Fatalf("a range that is free again is not preferred: %v, %v", again.prefix, err)
	}
	again.marker.Close()
	for _, wrong := range []string{"127.7.0.0", "127.7.0.0/30", "::1/64", "192.0.2.0/24"} {
		if _, err := claim(wrong, ""); err == nil {
			t.Errorf("%s was taken", wrong)
		}
	}
}

func TestPortsDiffer(t *testing.T) {
	taken := map[int]bool{}
	first, err := portOr(0, taken)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := portOr(first, taken); err != nil || again == first {
		t.Fatalf("port %d again: %d, %v", first, again, err)
	}
	if kept, err := portOr(first, map[int]bool{}); err != nil || kept != first {
		t.Fatalf("a free port is not kept: %d, %v", kept, err)
	}
}
