"""argv: TAG GO LINES WIDTH. When the file GO appears, writes LINES lines of WIDTH bytes, one write each, and notes in
GO.times when it began and ended. Then sleeps."""
import os
import sys
import time

go, lines, width = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
while not os.path.exists(go):
    time.sleep(0.005)
rest = b"x" * (width - 10) + b"\n"
began = time.time()
for number in range(lines):
    line = b"%08d " % number + rest
    while line:
        line = line[os.write(1, line):]
ended = time.time()
with open(go + ".part", "w", encoding="ascii") as note:
    note.write(f"{began} {ended}")
os.rename(go + ".part", go + ".times")
time.sleep(1_000_000)
