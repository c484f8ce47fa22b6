# Outlives the owner of a world, however it dies, and then ends what the owner left.
#
# Arguments: the world's id, the world's folder. Standard input is a pipe that only the owner holds: the word "done"
# on it means that the owner has cleaned up; its end without that word means that the owner is gone.
id=$1
folder=$2
case $folder in
/*/towpath-world-?*) ;;
*) exit 2 ;;
esac

trap '' HUP INT TERM
IFS= read -r word
[ "$word" = done ] && exit 0

# A process is the world's when it carries the world's id in its environment, or runs in a root below its folder.
pids() {
	{
		grep -lzxF "TOWPATH_WORLD=$id" /proc/[0-9]*/environ
		find /proc/[0-9]*/root -maxdepth 0 -lname "$folder/*"
	} 2>/dev/null | while IFS=/ read -r _ _ pid _; do
		echo "$pid"
	done
}

# One look may miss a process that is just being started, so only the second empty one in a row counts.
round=0
empty=0
while [ "$round" -lt 200 ] && [ "$empty" -lt 2 ]; do
	found=$(pids)
	if [ -z "$found" ]; then
		empty=$((empty + 1))
	elif [ "$round" -eq 0 ]; then
		empty=0
		kill -s TERM $found 2>/dev/null
	elif [ "$round" -ge 20 ]; then
		empty=0
		kill -s KILL $found 2>/dev/null
	else
		empty=0
	fi
	round=$((round + 1))
	sleep 0.05
done

while read -r _ _ _ _ point _; do
	case $point in
	"$folder"/*) umount -l "$point" 2>/dev/null ;;
	esac
done </proc/self/mountinfo

# Never into a mount that could not be undone: that would remove what lies at its other end.
rm -rf --one-file-system -- "$folder" 2>/dev/null && exit 0
# Some tools leave folders that not even their owner may write to.
chmod -R u+rwX -- "$folder" 2>/dev/null
rm -rf --one-file-system -- "$folder"
